// The objects of the store as a graph: parents on the left, what was made from them on the right.

const NODE = { width: 168, height: 34, across: 40, down: 10 };
const MAX_NODES = 200; // of a store with more, only the relatives of the selected object are drawn

const svg = (name, properties, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties))
    if (value !== null) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

const graph = { box: null };

function graphBox() {
  graph.note = make("p", { class: "muted small" });
  graph.box = make("div", {
    class: "graph wide",
    role: "region",
    tabindex: "0",
    "aria-label": "Graph of the store",
  });
  const holder = make(
    "details",
    { ontoggle: () => holder.open && drawGraph(store.selected) },
    make("summary", {}, "As a graph"),
    graph.note,
    graph.box,
  );
  graph.holder = holder;
  return holder;
}

/** The objects to draw: all, or the nearest relatives of this one. */
function chooseNodes(object) {
  if (store.all.length <= MAX_NODES) return store.all;
  const chosen = new Set();
  const waiting = [object ?? store.all[0]];
  while (waiting.length && chosen.size < MAX_NODES) {
    const next = waiting.shift();
    if (!next || chosen.has(next)) continue;
    chosen.add(next);
    for (const id of [...next.parents, ...next.children]) waiting.push(objects.get(id));
  }
  return [...chosen].sort((a, b) => a.number - b.number);
}

function drawGraph(selected) {
  if (!graph.holder?.open) return;
  const nodes = chooseNodes(selected);
  const columns = new Map(); // parents are always older, so one pass is enough
  const heights = [];
  const places = new Map();
  for (const node of nodes) {
    const column = Math.max(
      0,
      ...node.parents.map((id) => (columns.has(id) ? columns.get(id) + 1 : 0)),
    );
    columns.set(node.id, column);
    heights[column] = (heights[column] ?? 0) + 1;
    places.set(node.id, [
      column * (NODE.width + NODE.across) + 2,
      (heights[column] - 1) * (NODE.height + NODE.down) + 2,
    ]);
  }
  const width = heights.length * (NODE.width + NODE.across) - NODE.across + 4;
  const height = Math.max(...heights.filter(Boolean)) * (NODE.height + NODE.down) + 4;
  const edges = nodes.flatMap((node) =>
    node.parents
      .filter((id) => places.has(id))
      .map((id) => {
        const [fromX, fromY] = places.get(id);
        const [toX, toY] = places.get(node.id);
        const [x1, y1, x2, y2] = [
          fromX + NODE.width,
          fromY + NODE.height / 2,
          toX,
          toY + NODE.height / 2,
        ];
        const isNear = selected && (selected.id === id || selected.id === node.id);
        return svg("path", {
          class: isNear ? "edge near" : "edge",
          d: `M${x1} ${y1}C${x1 + 20} ${y1} ${x2 - 20} ${y2} ${x2} ${y2}`,
        });
      }),
  );
  const drawn = nodes.map((node) => {
    const [x, y] = places.get(node.id);
    const title = (text, cls, at) =>
      svg(
        "text",
        { x: x + 8, y: y + at, class: cls },
        ...textNodes(cut(text, 24)).map((each) =>
          typeof each === "string" ? each : each.textContent,
        ),
      );
    const isSelected = selected && selected.id === node.id;
    return svg(
      "a",
      {
        href: address(`object-${node.id}`),
        class: `node${isSelected ? " selected" : ""}${node.invalid === null ? "" : " invalid"}`,
        "aria-label": `${node.type}: ${oneLine(node.description, 80)}`,
        "aria-current": isSelected ? "true" : null,
      },
      svg("rect", { x, y, width: NODE.width, height: NODE.height, rx: 4 }),
      title(oneLine(node.description, 60) || node.id, "name", 14),
      title(`${node.type} · ${node.worker}`, "by", 27),
    );
  });
  graph.note.textContent =
    nodes.length < store.all.length
      ? `The ${count(nodes.length)} nearest relatives of the selected object, of ` +
        `${plural(store.all.length, "object")}.`
      : "";
  graph.box.replaceChildren(
    svg(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "group",
        "aria-label": "Objects and their parents",
      },
      ...edges,
      ...drawn,
    ),
  );
}
