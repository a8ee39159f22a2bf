// Histograms: how often values occur, on a logarithmic scale, and which of them the range of the quantizer holds.

function bars(quantizer, width, height) {
  const [low, high, counts] = quantizer.histogram;
  const range = quantizer.range;
  const from = range ? Math.min(low, range[0]) : low;
  const to = range ? Math.max(high, range[1]) : high;
  const span = to - from || 1;
  const x = value => (value - from) / span * width;
  const most = Math.log1p(Math.max(...counts)) || 1;
  const step = (high - low) / counts.length;
  const drawn = [];
  if (range) drawn.push(svg("rect", { class: "range", x: x(range[0]), y: 0, width: x(range[1]) - x(range[0]), height }));
  counts.forEach((count, index) => {
    if (!count) return;
    const center = low + (index + .5) * step;
    const outside = range && (center < range[0] - step / 2 || center > range[1] + step / 2);
    const tall = Math.max(1, Math.log1p(count) / most * height);
    drawn.push(svg("rect", {
      class: outside ? "outside" : "inside", x: x(low + index * step), y: height - tall,
      width: Math.max(.6, x(low + step) - x(low) - .4), height: tall,
    }));
  });
  return { drawn, from, to };
}

function histogram(quantizer) {
  const caption = html("figcaption", {}, quantizer.text);
  if (!quantizer.histogram) return html("figure", { class: "histogram" }, caption);
  const { drawn, from, to } = bars(quantizer, 300, 64);
  const label = `From ${number(from)} to ${number(to)}, counts on a logarithmic scale`;
  return html("figure", { class: "histogram" }, caption,
    svg("svg", { viewBox: "0 0 300 80", role: "img", "aria-label": label },
      ...drawn,
      svg("line", { class: "axis", x1: 0, x2: 300, y1: 64, y2: 64 }),
      svg("text", { x: 0, y: 77 }, number(from)),
      svg("text", { x: 300, y: 77, "text-anchor": "end" }, number(to))));
}

// A small one for a row of the table: of the last activation of the layer, else of its weight.
function spark(layer) {
  const shown = (layer.quantizers ?? []).filter(quantizer => quantizer.histogram);
  const quantizer = shown.filter(one => one.range).at(-1) ?? shown.at(-1);
  if (!quantizer) return "";
  return svg("svg", { class: "spark", viewBox: "0 0 96 22", "aria-hidden": "true" }, ...bars(quantizer, 96, 22).drawn);
}
