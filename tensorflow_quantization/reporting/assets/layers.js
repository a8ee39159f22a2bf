// The table of layers, and the details of a selected node.

const TITLES = { integer: "integer", float: "float", "": "neither, or not known" };
// [the key, the title, its kind, whether phones leave it out]
const COLUMNS = data.has_comparison
  ? [
      ["layer", "Layer", "name"], ["class", "Class", "text", true], ["", "Distribution", "spark"], ["effect", "Output, only this", "decibels"],
      ["share", "Share of noise", "share", true], ["own_snr", "Own", "decibels"], ["snr", "With all before", "decibels", true],
      ["saturation", "Saturated", "percent", true], ["dead_range", "Dead range", "percent", true],
    ]
  : [["layer", "Layer", "name"], ["class", "Class", "text"], ["why", "Why", "text", true], ["", "Distribution", "spark"]];
const SHOWN = 20;
let sorting = data.has_comparison ? "effect" : "", descending = false, shown = SHOWN;

function cell(layer, [key, , kind, extra]) {
  const value = layer[key];
  const content = {
    name: () => nodeLink(value),
    text: () => value ?? "",
    decibels: () => layer.texts?.[key] ?? "",
    percent: () => percent(value),
    share: () => value === undefined ? "" : html("span", {},
      html("span", { class: "share" }, html("i", { style: `width:${100 * value}%` })), percent(value)),
    spark: () => spark(layer),
  }[kind]();
  const classes = [kind === "name" ? "name" : "", ["decibels", "percent"].includes(kind) ? "number" : "", extra ? "extra" : ""];
  return html("td", { class: classes.filter(Boolean).join(" "), title: kind === "name" ? value : null }, content);
}

// What a column is sorted by: an infinite ratio is null.
function sortKey(layer, key) {
  const value = layer[key];
  if (value !== null || !layer.texts?.[key]) return value ?? "";
  return layer.texts[key] === "exact" ? Infinity : -Infinity;
}

function drawTable() {
  const rows = [...data.layers];
  if (sorting) {
    rows.sort((a, b) => {
      const [x, y] = [sortKey(a, sorting), sortKey(b, sorting)];
      if (x === y) return 0;
      if (x === "" || y === "") return x === "" ? 1 : -1;  // layers without a value last
      return (x < y ? -1 : 1) * (descending ? -1 : 1);
    });
  }
  const head = COLUMNS.map(([key, title, kind, extra]) => {
    const sort = key === sorting && key ? (descending ? "descending" : "ascending") : null;
    const classes = [["decibels", "percent"].includes(kind) ? "number" : "", extra ? "extra" : ""].filter(Boolean).join(" ");
    const label = key
      ? html("button", { type: "button", on: { click: () => sortBy(key) } }, title)
      : title;
    return html("th", { scope: "col", class: classes, "aria-sort": sort }, label);
  });
  const rest = rows.length - shown;
  byId("table").replaceChildren(
    html("table", {},
      html("thead", {}, html("tr", {}, ...head)),
      html("tbody", {}, ...rows.slice(0, shown).map(layer => html("tr", {}, ...COLUMNS.map(column => cell(layer, column)))))),
    rest > 0
      ? html("p", { class: "more" }, html("button", { type: "button", class: "link", on: { click: () => { shown = Infinity; drawTable(); } } },
          `Show ${rest} more`))
      : "");
}

function sortBy(key) {
  descending = sorting === key && !descending;
  sorting = key;
  drawTable();
}

function facts(pairs) {
  return html("dl", {}, ...pairs.filter(([, text]) => text).flatMap(([title, text]) => [html("dt", {}, title), html("dd", {}, text)]));
}

function showDetails(node) {
  const layers = layersOf(node);
  const parts = [
    html("h3", {}, node.kind),
    html("p", { class: "mono soft" }, node.name),
    html("p", {}, html("span", { class: `badge ${node.ran}` }, TITLES[node.ran])),
    facts(node.facts),
  ];
  parts.push(...layers.map(layerDetails));
  const concerned = data.findings.flatMap(group => group.items)
    .filter(item => item.where.some(name => name === node.name || layers.some(layer => layer.layer === name)));
  if (concerned.length) parts.push(html("section", {}, html("h3", {}, "Findings"), ...concerned.map(item =>
    html("p", {}, item.what, " ", html("span", { class: "soft" }, item.fix)))));
  byId("details").replaceChildren(...parts);
}

function layerDetails(layer) {
  const texts = layer.texts ?? {};
  return html("section", {},
    html("h3", {}, `Layer ${layer.layer}`),
    facts([
      ["class", layer.class], ["why", layer.why],
      ["output, only this", texts.effect], ["own", texts.own_snr], ["worst channel", texts.worst_channel],
      ["with all before", texts.snr], ["in the runtime", texts.runtime_snr], ["share of noise", percent(layer.share)],
      ["saturated", percent(layer.saturation)], ["dead range", percent(layer.dead_range)], ["bias", percent(layer.bias)],
    ]),
    ...(layer.quantizers ?? []).map(histogram));
}
