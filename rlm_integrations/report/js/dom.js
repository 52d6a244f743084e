// Elements, text and numbers. Foreign text only ever becomes text nodes.

/** The data of this name, or null. */
function data(name) {
  const element = document.getElementById(`data-${name}`);
  return element ? JSON.parse(element.textContent) : null;
}

const CONTROL = new RegExp(
  "[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u061c\\u200b" +
    "\\u2028-\\u202e\\u2060\\u2066-\\u2069\\ufeff\\ufff9-\\ufffb]",
  "g",
);

/** The text as nodes; characters that are invisible or change its direction are shown by code. */
function textNodes(text) {
  const nodes = [];
  let done = 0;
  for (const found of text.matchAll(CONTROL)) {
    if (found.index > done) nodes.push(text.slice(done, found.index));
    const code = found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(make("span", { class: "control" }, `U+${code}`));
    done = found.index + 1;
  }
  if (done < text.length) nodes.push(text.slice(done));
  return nodes;
}

/** An element. Properties that begin with "on" are listeners, the others attributes. */
function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Foreign text in its own direction, which cannot change that of the text around it. */
const foreign = (text, name = "bdi", properties = {}) =>
  make(name, { dir: "auto", ...properties }, textNodes(String(text)));

const pre = (text, properties) => foreign(text, "pre", { tabindex: "0", ...properties });

/** A link's address of something on the page; half a pair of surrogates has no encoding. */
const address = (name) => `#${encodeURIComponent(name.replace(/\p{Surrogate}/gu, "\ufffd"))}`;

const link = (name, ...children) => make("a", { href: address(name) }, ...children);

const button = (label, onclick, properties) =>
  make("button", { type: "button", onclick, ...properties }, label);

/** A part of the page that a heading names. */
function section(id, title, ...children) {
  const heading = make("h2", { id: `${id}-title`, tabindex: "-1" }, title);
  return make("section", { id, "aria-labelledby": heading.id }, heading, ...children);
}

/** A list of names and values. */
const facts = (pairs, properties) =>
  make(
    "dl",
    { class: "facts", ...properties },
    pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );

/** A table; a cell that is a number stands on the right. */
function table(caption, heads, rows) {
  const cell = (value, at) =>
    at === 0
      ? make("th", { scope: "row" }, value)
      : make("td", {}, typeof value === "number" ? count(value) : value);
  return make(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    make(
      "table",
      {},
      make("caption", {}, caption),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          heads.map((head) => make("th", { scope: "col" }, head)),
        ),
      ),
      make(
        "tbody",
        {},
        rows.map((row) => make("tr", {}, row.map(cell))),
      ),
    ),
  );
}

const FORMAT = new Intl.NumberFormat("en-US");
const count = (number) => FORMAT.format(number);
const manyOf = (noun) => (/ch$/.test(noun) ? `${noun}es` : `${noun}s`.replace(/ys$/, "ies"));
const plural = (number, noun) => `${count(number)} ${number === 1 ? noun : manyOf(noun)}`;

function seconds(value) {
  if (value === null || value === undefined) return "unknown";
  if (value >= 100) return `${count(Math.round(value))} s`;
  if (value >= 1) return `${value.toFixed(1)} s`;
  if (value > 0 && value < 0.0001) return "<0.1 ms";
  return value >= 0.01 || value <= 0
    ? `${Math.round(value * 1000)} ms`
    : `${(value * 1000).toFixed(1)} ms`;
}

const dollars = (value) =>
  value === null || value === undefined
    ? "unknown"
    : value === 0
      ? "$0"
      : `$${value.toFixed(value < 1 ? 4 : 2)}`;

const percent = (part, whole) =>
  whole ? `${(Math.floor((part / whole) * 1000) / 10).toFixed(1)} %` : "0 %";

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const oneLine = (text, most) =>
  cut(
    text
      .slice(0, 4 * most)
      .replace(/\s+/g, " ")
      .trim(),
    most,
  );
