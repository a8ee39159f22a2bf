// The network: drawn once as SVG in a scrolling box, so that panning is the browser's own scrolling.

const { nodes, edges, width, height, node_width: nodeWidth, node_height: nodeHeight } = data.network;
const viewport = byId("viewport");
const overview = byId("overview");
// Signal-to-noise ratios in dB that begin the next colour.
const STEPS = [10, 20, 30, 40];
let drawing, scale = 1, selected = -1, elements = [];

function route(points) {
  let path = `M${points[0]}`;
  for (let i = 1; i < points.length; i++) {
    const [x, y] = points[i - 1], [nextX, nextY] = points[i], middle = (y + nextY) / 2;
    path += i % 2 ? `C${x},${middle} ${nextX},${middle} ${nextX},${nextY}` : `V${nextY}`;
  }
  return path;
}

function snrClass(node) {
  const layer = layerOf.get(node.layer);
  if (!layer?.texts) return "";
  return `snr${STEPS.filter(step => (layer.own_snr ?? Infinity) >= step).length}`;
}

function drawGraph() {
  elements = nodes.map((node, index) => {
    const [x, y] = node.at;
    const path = node.layer && node.layer !== node.name ? node.layer : node.name;
    return svg("g", { class: `node ${node.ran} ${snrClass(node)}`, transform: `translate(${x},${y})`, "data-node": index },
      svg("title", {}, node.name),
      svg("rect", { class: "body", width: nodeWidth, height: nodeHeight, rx: 6 }),
      svg("rect", { class: "stripe", width: 5, height: nodeHeight, rx: 2.5 }),
      svg("text", { class: "kind", x: 15, y: 19 }, shortened(node.kind, 22)),
      svg("text", { class: "path", x: 15, y: 34 }, shortened(path, 27)));
  });
  const ways = edges.map(edge =>
    svg("path", { class: `edge ${edge.ran}`, d: route(edge.route) },
      svg("title", {}, edge.label)));
  // A margin for strokes.
  drawing = svg("svg", { viewBox: `-2 -2 ${width + 4} ${height + 4}`, role: "img", "aria-label": `${nodes.length} nodes` },
    svg("g", {}, ...ways), svg("g", {}, ...elements));
  viewport.append(drawing);
  viewport.addEventListener("click", event => {
    const node = event.target.closest?.(".node");
    if (node) select(Number(node.dataset.node));
  });
  resize(Math.min(1, Math.max(.5, (viewport.clientWidth - 40) / (width + 4))));
  viewport.scrollTop = 0;
  if (nodes.length) viewport.scrollLeft = 20 + (nodes[0].at[0] + nodeWidth / 2) * scale - viewport.clientWidth / 2;
}

function resize(next) {
  scale = Math.min(3, Math.max(.02, next));
  drawing.setAttribute("width", (width + 4) * scale);
  drawing.setAttribute("height", (height + 4) * scale);
}

// Zooms so that the point (x, y) of the box stays where it is.
function zoom(factor, x = viewport.clientWidth / 2, y = viewport.clientHeight / 2) {
  const before = drawing.getBoundingClientRect(), box = viewport.getBoundingClientRect();
  const left = (x + box.left - before.left) / before.width, top = (y + box.top - before.top) / before.height;
  resize(scale * factor);
  const after = drawing.getBoundingClientRect();
  viewport.scrollLeft += after.left + left * after.width - box.left - x;
  viewport.scrollTop += after.top + top * after.height - box.top - y;
  drawOverview();
}

function select(index) {
  elements[selected]?.classList.remove("selected");
  selected = index;
  elements[index].classList.add("selected");
  showDetails(nodes[index]);
  drawOverview();
}

function reveal(index) {
  if (scale < .4) resize(1);
  const [x, y] = nodes[index].at;
  const left = drawing.getBoundingClientRect().left - viewport.getBoundingClientRect().left + viewport.scrollLeft;
  viewport.scrollTo({
    left: left + (x + nodeWidth / 2) * scale - viewport.clientWidth / 2,
    top: 20 + (y + nodeHeight / 2) * scale - viewport.clientHeight / 2,
  });
}

// From a finding or a row of the table: selects a node, and brings the graph into view.
function show(index) {
  byId("network").scrollIntoView({ block: "start" });
  reveal(index);
  select(index);
}

// The whole network in a strip; a frame shows the part in view.
function drawOverview() {
  const ratio = window.devicePixelRatio || 1, box = overview.getBoundingClientRect();
  overview.width = box.width * ratio;
  overview.height = box.height * ratio;
  const context = overview.getContext("2d"), fit = overviewScale(box);
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(name);
  const colors = { integer: color("--integer"), float: color("--float"), "": color("--other") };
  context.scale(ratio, ratio);
  const left = (box.width - width * fit) / 2;
  nodes.forEach((node, index) => {
    context.fillStyle = index === selected ? color("--accent") : colors[node.ran];
    const tall = Math.max(1.5, nodeHeight * fit);
    context.fillRect(left + node.at[0] * fit, 8 + node.at[1] * fit, Math.max(3, nodeWidth * fit), tall);
  });
  context.strokeStyle = color("--ink");
  const top = 8 + (viewport.scrollTop - 20) / scale * fit;
  context.strokeRect(1.5, Math.max(1.5, top), box.width - 3, Math.min(viewport.clientHeight / scale * fit, box.height - 3));
}

function overviewScale(box) {
  return Math.min((box.width - 12) / Math.max(width, 1), (box.height - 16) / Math.max(height, 1));
}

function moveOverview(event) {
  if (!event.buttons) return;
  const box = overview.getBoundingClientRect();
  viewport.scrollTop = 20 + (event.clientY - box.top - 8) / overviewScale(box) * scale - viewport.clientHeight / 2;
}

function listenToGraph() {
  byId("zoom-in").addEventListener("click", () => zoom(1.3));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.3));
  byId("zoom-fit").addEventListener("click", () => {
    resize(Math.min(1, (viewport.clientWidth - 40) / (width + 4), (viewport.clientHeight - 40) / (height + 4)));
    drawOverview();
  });
  viewport.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = viewport.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  viewport.addEventListener("keydown", event => {
    if (event.key === "+" || event.key === "=") zoom(1.3);
    if (event.key === "-") zoom(1 / 1.3);
  });
  viewport.addEventListener("scroll", drawOverview);
  viewport.addEventListener("pointerdown", event => {
    if (event.pointerType === "mouse" && event.button === 0) viewport.classList.add("dragging");
  });
  window.addEventListener("pointerup", () => viewport.classList.remove("dragging"));
  window.addEventListener("pointermove", event => {
    if (!viewport.classList.contains("dragging")) return;
    viewport.scrollLeft -= event.movementX;
    viewport.scrollTop -= event.movementY;
  });
  let apart = 0;
  const distance = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  viewport.addEventListener("touchstart", event => { if (event.touches.length === 2) apart = distance(event.touches); });
  viewport.addEventListener("touchmove", event => {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    const [a, b] = event.touches, box = viewport.getBoundingClientRect(), now = distance(event.touches);
    zoom(now / apart, (a.clientX + b.clientX) / 2 - box.left, (a.clientY + b.clientY) / 2 - box.top);
    apart = now;
  }, { passive: false });
  overview.addEventListener("pointerdown", moveOverview);
  overview.addEventListener("pointermove", moveOverview);
  window.addEventListener("resize", drawOverview);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawOverview);
}

// Marks the nodes in which all words of the query occur; Enter goes to the next.
function listenToSearch() {
  const search = byId("search"), hits = byId("hits");
  const texts = nodes.map(node => `${node.name} ${node.layer} ${node.kind} ${layerOf.get(node.layer)?.class ?? ""}`.toLowerCase());
  let found = [], at = -1;
  function go(step) {
    if (!found.length) return;
    at = (at + step + found.length) % found.length;
    reveal(found[at]);
    select(found[at]);
    hits.textContent = `${at + 1} of ${found.length}`;
  }
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = words.length ? nodes.map((_, index) => index).filter(index => words.every(word => texts[index].includes(word))) : [];
    at = -1;
    drawing.classList.toggle("searching", words.length > 0);
    elements.forEach(one => one.classList.remove("hit"));
    found.forEach(index => elements[index].classList.add("hit"));
    hits.textContent = words.length ? (found.length ? `${found.length} found` : "none found") : "";
    if (found.length) reveal(found[0]);
  });
  search.addEventListener("keydown", event => {
    if (event.key === "Enter") go(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") { search.value = ""; search.dispatchEvent(new Event("input")); }
  });
}
