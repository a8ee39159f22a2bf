// Elements, texts and look-ups that all parts of the page use. All texts are set as text: no name becomes HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);

function element(space, tag, attributes, children) {
  const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, run] of Object.entries(value)) made.addEventListener(event, run);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined && child !== ""));
  return made;
}

const html = (tag, attributes = {}, ...children) => element(null, tag, attributes, children);
const svg = (tag, attributes = {}, ...children) => element("http://www.w3.org/2000/svg", tag, attributes, children);

const percent = share => share === null || share === undefined ? "" : `${(100 * share).toFixed(1)} %`;

function number(value) {
  if (value === null || value === undefined) return "";
  return Number(value.toPrecision(4)).toString();
}

// A text of at most `length` letters, without its middle: both ends of a path tell layers apart.
function shortened(text, length) {
  if (text.length <= length) return text;
  const end = Math.ceil((length - 1) / 2);
  return `${text.slice(0, length - 1 - end)}…${text.slice(text.length - end)}`;
}

const layerOf = new Map(data.layers.map(layer => [layer.layer, layer]));
const indexOfNode = new Map();
const indexOfLayer = new Map();
data.network.nodes.forEach((node, index) => {
  indexOfNode.set(node.name, index);
  if (!indexOfLayer.has(node.layer)) indexOfLayer.set(node.layer, index);
});

data.layers.forEach(layer => {
  const drawn = indexOfLayer.get(layer.drawn_as);
  if (!indexOfLayer.has(layer.layer) && drawn !== undefined) indexOfLayer.set(layer.layer, drawn);
});

// The layers that a node draws: its own, and those that are part of it.
const layersOf = node => data.layers.filter(layer => layer.layer === node.layer || layer.drawn_as === node.layer);

// The node of a name: of a node, a layer, or something inside a layer, such as its quantizer.
function nodeOf(name) {
  for (let path = name; path; path = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "") {
    const found = indexOfNode.get(path) ?? indexOfLayer.get(path) ?? indexOfLayer.get(path.replace(/(^|\/)quant_([^/]*)$/, "$1$2"));
    if (found !== undefined) return found;
  }
}

// A name that selects its node in the graph; plain text if it is not drawn.
function nodeLink(name) {
  const index = nodeOf(name);
  if (index === undefined) return html("span", {}, name);
  return html("button", { type: "button", class: "link", on: { click: () => show(index) } }, name);
}
