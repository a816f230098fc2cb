"use strict";
{
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const section = document.getElementById("explorer");
  const [metric, slider, output, costs, bars, widths, commands] =
    ["select", "input", "output", ".costs", ".bars", ".widths", "pre"].map(part => section.querySelector(part));
  const units = {macs: "MACs", params: "parameters", latency: "ms predicted"};
  const shown = (value, unit) => unit === "latency" ? value.toFixed(3) : value.toLocaleString("en");

  const shape = (kind, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const bar = (x, y, width, height, fill) => shape("rect", {x, y, width, height, fill});
  const svg = shape("svg", {viewBox: "0 0 960 170", role: "img"});
  bars.append(svg);

  const draw = () => {
    const percent = Number(slider.value), budget = `${metric.value}=${percent / 100}`;
    const [least, places] = data.at[metric.value];
    const [cost, kept] = data.cuts[places[percent - least]];
    output.textContent = budget;
    costs.textContent = data.metrics.map((unit, i) =>
      `${shown(cost[i], unit)} ${units[unit]} (${(100 * cost[i] / data.reference[i]).toFixed(1)}%)`).join(", ");
    widths.textContent = data.groups.map((name, i) => `${name} ${kept[i]} of ${data.dense[i]}`).join(", ");
    commands.textContent = data.commands.join("\n").replaceAll("{budget}", budget);
    const step = 960 / kept.length, scale = 160 / Math.max(...data.dense, ...data.widest);
    svg.setAttribute("aria-label", widths.textContent);
    svg.replaceChildren(...kept.flatMap((width, i) => [
      bar(i * step + step * .1, 165 - width * scale, step * .8, width * scale, "#2f7fc4"),
      bar(i * step, 164 - data.dense[i] * scale, step, 2, "currentColor"),
    ]));
  };

  const limits = () => {
    slider.min = data.at[metric.value][0];
    draw();
  };
  [metric.value, slider.min, slider.value] = [data.start[0], data.at[data.start[0]][0], data.start[1]];
  metric.addEventListener("input", limits);
  slider.addEventListener("input", draw);
  section.hidden = false;
  draw();
}
