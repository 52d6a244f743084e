// A list of any length: only the rows in view are elements.

const EXTRA_ROWS = 6; // drawn above and below the view
const MAX_INDENT = 12; // levels of a tree that are indented

/** A grid with a row of heads, `[class, ...content]` each, and the long list below it. */
function gridOf(kind, label, heads, { role = "grid", describedBy, ...options }) {
  const head = make(
    "div",
    { role: "row", class: "row head", "aria-rowindex": "1" },
    heads.map(([name, ...content]) => make("span", { role: "columnheader", class: name }, content)),
  );
  const box = make(
    "div",
    {
      class: `list ${kind}`,
      role,
      tabindex: "0",
      "aria-label": label,
      "aria-describedby": describedBy,
    },
    head,
  );
  const list = new LongList(box, options);
  list.room.setAttribute("role", "rowgroup");
  return list;
}

const gridCell = (name, ...content) => make("span", { role: "gridcell", class: name }, content);

/** A row of a grid; `at` is its position in the list, `marks` are classes or null. */
const gridRow = (id, at, isActive, marks, cells, properties) =>
  make(
    "div",
    {
      role: "row",
      id,
      class: ["row", isActive ? "active" : null, ...marks].filter(Boolean).join(" "),
      "aria-rowindex": at + 2,
      "aria-selected": String(isActive),
      ...properties,
    },
    cells,
  );

/**
 * Rows of one height inside a scrolling element, one of which is active.
 *
 * `draw(index, isActive)` makes the element of a row, `onmove(index)` is called when the user moves
 * to a row, `onenter(index)` when the user chooses it; `keys(event)` may handle further keys.
 */
class LongList {
  constructor(box, { height, draw, onmove, onenter, keys }) {
    Object.assign(this, { box, height, draw, onmove, onenter, keys });
    this.length = 0;
    this.active = 0;
    this.room = make("div", { class: "room", role: "presentation" });
    box.append(this.room);
    box.addEventListener("scroll", () => this.drawSoon());
    box.addEventListener("keydown", (event) => this.onkey(event));
    box.addEventListener("click", (event) => this.onclick(event));
    new ResizeObserver(() => this.drawSoon()).observe(box);
  }

  /** Show this many rows, and the active one. */
  show(length, active) {
    this.length = length;
    this.box.setAttribute("aria-rowcount", length + 1);
    this.active = Math.max(0, Math.min(active, length - 1));
    this.room.style.height = `${length * this.height}px`;
    this.drawNow();
  }

  /** Make a row the active one, and scroll so that it is seen. */
  move(index) {
    this.active = Math.max(0, Math.min(index, this.length - 1));
    const top = this.active * this.height;
    const view = this.box.clientHeight - this.headHeight();
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + view) {
      this.box.scrollTop = top + this.height - view;
    }
    this.drawNow();
  }

  headHeight() {
    return this.room.offsetTop;
  }

  drawSoon() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.drawNow();
    });
  }

  drawNow(isWhole = false) {
    const view = Math.max(this.box.clientHeight, 100);
    const first = isWhole
      ? 0
      : Math.max(0, Math.floor(this.box.scrollTop / this.height) - EXTRA_ROWS);
    const rows = isWhole ? this.length : Math.ceil(view / this.height) + 2 * EXTRA_ROWS;
    const drawn = [];
    for (let at = first; at < Math.min(this.length, first + rows); at++) {
      const row = this.draw(at, at === this.active);
      row.dataset.index = at;
      row.style.top = `${at * this.height}px`;
      drawn.push(row);
    }
    this.room.replaceChildren(...drawn);
    const active = drawn.find((row) => Number(row.dataset.index) === this.active);
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  onkey(event) {
    if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 2);
    const steps = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.length - 1,
    };
    if (event.key in steps && this.length) {
      this.move(steps[event.key]);
      this.onmove(this.active);
    } else if (event.key === "Enter" && this.length) {
      this.onenter(this.active);
    } else if (!this.keys || !this.keys(event)) {
      return;
    }
    event.preventDefault();
  }

  onclick(event) {
    const row = event.target.closest("[data-index]");
    if (!row || event.target.closest("button")) return;
    this.active = Number(row.dataset.index);
    this.drawNow();
    this.onmove(this.active);
  }
}
