// The parts of the page from top to bottom.

function drawFigures() {
  byId("figures").append(...data.figures.map(figure => html("div", { class: "figure" },
    html("div", { class: "title" }, figure.title),
    html("div", { class: "value" }, figure.float ? html("small", {}, `${figure.float} → `) : "", html("span", {}, figure.value || "–")),
    figure.note ? html("p", { class: "note" }, figure.note) : "")));
}

const FIRST = 6;

function drawFinding(item) {
  const names = item.where.slice(0, FIRST).flatMap((name, index) => index ? [", ", nodeLink(name)] : [nodeLink(name)]);
  const rest = item.where.length - FIRST;
  return html("div", { class: "finding" },
    html("span", { class: `mark ${item.severity}` }, item.mark),
    html("div", {},
      html("p", {}, ...names, rest > 0 ? ` and ${rest} more` : "", names.length ? ": " : "", item.what),
      item.fix ? html("p", { class: "fix" }, item.fix) : ""));
}

function drawFindings() {
  if (!data.findings.length) return;
  byId("findings").append(html("h2", {}, "Findings, and what to try next"), ...data.findings.map(group => {
    const count = group.items.length ? `${group.items.length}` : "nothing found";
    return html("details", { class: "group", open: group.items.length ? "" : null },
      html("summary", {}, group.title, " ", html("span", { class: "soft" }, `${count} · ${group.of}`)),
      ...group.items.slice(0, FIRST).map(drawFinding),
      ...(group.items.length > FIRST ? [moreFindings(group)] : []));
  }));
}

function moreFindings(group) {
  const rest = group.items.slice(FIRST);
  const more = html("p", { class: "more" }, html("button", { type: "button", class: "link", on: {
    click: () => more.replaceWith(...rest.map(drawFinding)),
  } }, `Show ${rest.length} more`));
  return more;
}

function drawLegend(bySnr) {
  const swatch = (color, text) => html("span", {}, html("i", { style: `background:var(${color})` }), text);
  const items = bySnr
    ? [10, 20, 30, 40, null].map((limit, index) => swatch(`--snr${index}`, limit ? `below ${limit} dB` : "40 dB and above"))
    : [swatch("--integer", "integer"), swatch("--float", "float"), swatch("--other", "neither, or not known")];
  const says = bySnr ? "Colours: each layer's own signal-to-noise ratio, for float inputs." : data.network.says;
  byId("legend").replaceChildren(...items, html("span", {}, says));
}

function chooseColors() {
  if (!data.has_comparison) return;
  const choices = [["Integer or float", false], ["Signal-to-noise", true]].map(([title, bySnr]) =>
    html("button", { type: "button", "aria-pressed": String(!bySnr), on: { click: event => {
      choices.forEach(choice => choice.setAttribute("aria-pressed", String(choice === event.currentTarget)));
      viewport.classList.toggle("by-snr", bySnr);
      drawLegend(bySnr);
    } } }, title));
  byId("colors").append(...choices);
}

function drawLeftOut() {
  if (!data.left_out.length) return;
  byId("left-out").append(html("h2", {}, "Left out"), html("ul", { class: "soft" }, ...data.left_out.map(text => html("li", {}, text))));
}

drawFigures();
drawFindings();
chooseColors();
drawLegend(false);
drawGraph();
listenToGraph();
listenToSearch();
byId("details").append(html("p", { class: "soft" }, "Select a node to see what is known of it."));
drawOverview();
if (data.layers.length) drawTable();
else byId("layers").hidden = true;
drawLeftOut();
byId("versions").textContent = data.versions;
