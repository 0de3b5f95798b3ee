"use strict";

/* The task table: which metric is shown, and sorting within each group by what is shown. */
function taskTable(table) {
  for (const radio of document.querySelectorAll("#tasks [name=metric]")) {
    radio.addEventListener("change", () => { table.dataset.metric = radio.value; });
  }
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      for (const body of table.tBodies) sortRows(body, column, order, table.dataset.metric);
    });
  });
}

function sortRows(body, column, order, metric) {
  const value = (row) => {
    const score = row.cells[column].querySelector(`.${CSS.escape(metric)}`);
    if (!score) return row.cells[column].textContent.trim();
    return score.dataset.value === "" ? null : Number(score.dataset.value);
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); /* what was not measured comes last */
    const sign = typeof a === "number" ? a - b : a.localeCompare(b);
    return order === "ascending" ? sign : -sign;
  };
  const rows = [...body.rows].slice(1);
  rows.sort((a, b) => compare(value(a), value(b)));
  body.append(...rows);
}

/* The routing explorer. Layer 0 of the slider is the mean over layers. */
class Explorer {
  constructor(root, data) {
    this.sentences = data.sentences;
    this.scale = data.scale;
    this.find = (selector) => root.querySelector(selector);
    this.slider = this.find("#layer");
    this.tokens = this.find(".tokens");
    this.pinned = null;
    this.slider.addEventListener("input", () => this.draw());
    this.tokens.addEventListener("mouseleave", () => this.show(this.pinned));
    this.tokens.addEventListener("keydown", (event) => this.step(event));
    this.listSentences();
    this.choose(0);
    root.hidden = false;
  }

  listSentences() {
    const rows = this.sentences.map((sentence, index) => {
      const radio = element("input", { type: "radio", name: "sentence", checked: index === 0 });
      radio.addEventListener("change", () => this.choose(index));
      const row = element("label", { title: sentence.text });
      row.append(radio, element("span", {}, sentence.library), element("span", {}, sentence.text));
      return row;
    });
    this.find(".sentences").replaceChildren(...rows);
  }

  choose(index) {
    this.sentence = this.sentences[index];
    this.pinned = null;
    this.shown = null;
    this.slider.style.setProperty("--layers", this.sentence.layers);
    this.slider.max = this.sentence.layers;
    this.slider.value = Math.min(this.slider.value, this.sentence.layers);
    this.chips = this.sentence.tokens.map((token, place) => this.chip(token, place));
    const broken = this.chips.flatMap((chip, place) =>
      this.sentence.tokens[place].includes("\n") ? [chip, element("br")] : [chip]);
    this.tokens.replaceChildren(...broken);
    this.rows = this.sentence.experts.map((expert, place) => this.row(expert, place));
    this.find(".experts").replaceChildren(...this.rows);
    this.draw();
  }

  chip(token, place) {
    const chip = element("span", { role: "option" }, token.replace(/\n/g, "↵"));
    chip.addEventListener("mouseenter", () => this.show(place));
    chip.addEventListener("click", () => {
      this.pinned = this.pinned === place ? null : place;
      this.show(this.pinned);
    });
    return chip;
  }

  row(expert, place) {
    const row = element("div", { className: "expert", title: expert });
    row.classList.toggle("expected", expert === this.sentence.expected);
    row.style.setProperty("--colour", this.sentence.colours[place]);
    const name = element("span");
    const swatch = element("i", { className: "swatch round" });
    name.append(swatch, expert);
    const cells = element("span", { className: "cells" });
    for (let layer = 1; layer <= this.sentence.layers; layer++) {
      const cell = element("i", { title: `layer ${layer}` });
      cell.addEventListener("click", () => { this.slider.value = layer; this.draw(); });
      cells.append(cell);
    }
    row.append(name, cells, element("span"));
    return row;
  }

  step(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const last = this.chips.length - 1;
    this.pinned = this.pinned === null ? 0 : Math.min(last, Math.max(0, this.pinned + move));
    this.show(this.pinned);
  }

  /* The mean weight of each expert over the given layers and tokens, both counted from 0. */
  weights(layers, places) {
    const { tokens, experts, weights } = this.sentence;
    const sums = new Array(experts.length).fill(0);
    for (const layer of layers) {
      for (const place of places) {
        const start = (layer * tokens.length + place) * experts.length;
        for (let expert = 0; expert < experts.length; expert++) sums[expert] += weights[start + expert];
      }
    }
    return sums.map((sum) => sum / (layers.length * places.length * this.scale));
  }

  layers() {
    const layer = Number(this.slider.value);
    return layer ? [layer - 1] : range(this.sentence.layers);
  }

  draw() {
    const layer = Number(this.slider.value);
    this.find(".layer output").textContent = layer ? `${layer} of ${this.sentence.layers}` : "mean";
    this.slider.setAttribute("aria-valuetext", layer ? `layer ${layer}` : "mean over layers");
    this.tops = this.chips.map((chip, place) => {
      const weights = this.weights(this.layers(), [place]);
      const top = weights.indexOf(Math.max(...weights));
      chip.style.setProperty("--colour", this.sentence.colours[top]);
      chip.style.setProperty("--weight", Math.sqrt(weights[top]).toFixed(3));
      return top;
    });
    this.show(this.shown);
  }

  /* The grid and the line of text, for one token or, given null, for the sentence. */
  show(place) {
    this.shown = place;
    this.chips.forEach((chip, index) => chip.classList.toggle("shown", index === place));
    const places = place === null ? range(this.chips.length) : [place];
    const byLayer = range(this.sentence.layers).map((layer) => this.weights([layer], places));
    const chosen = this.weights(this.layers(), places);
    const current = Number(this.slider.value) - 1;
    this.rows.forEach((row, expert) => {
      row.lastChild.textContent = chosen[expert].toFixed(3);
      [...row.children[1].children].forEach((cell, layer) => {
        cell.style.setProperty("--weight", Math.sqrt(byLayer[layer][expert]).toFixed(3));
        cell.classList.toggle("chosen", layer === current);
      });
    });
    this.find(".reading").textContent = this.reading(place, chosen);
  }

  reading(place, weights) {
    const { experts, tokens, expected } = this.sentence;
    if (place !== null) {
      const order = range(experts.length).sort((a, b) => weights[b] - weights[a]).slice(0, 4);
      const parts = order.filter((expert) => weights[expert] > 0)
        .map((expert) => `${experts[expert]} ${weights[expert].toFixed(3)}`);
      return `“${tokens[place].trim() || "↵"}”: ${parts.join(", ")}`;
    }
    if (!experts.includes(expected)) return "Point at a token for its weights.";
    const right = this.tops.filter((top) => experts[top] === expected).length;
    return `Expected expert: ${expected}. It is the top expert of ${right} of ${tokens.length} tokens here.`;
  }
}

function element(tag, properties = {}, text = "") {
  const made = Object.assign(document.createElement(tag), properties);
  if (text) made.textContent = text;
  return made;
}

function range(length) {
  return Array.from({ length }, (_, index) => index);
}

const tasks = document.querySelector("table.tasks");
if (tasks) taskTable(tasks);
const routing = document.getElementById("routing-data");
if (routing) new Explorer(document.getElementById("explorer"), JSON.parse(routing.textContent));
