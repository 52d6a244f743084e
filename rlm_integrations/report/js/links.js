// Links within the page: the browser alone does not know rows, objects and places.

const MOVE_DELAY = 250; // milliseconds: browsers refuse many changes of the address in a short time
let moving = null;

/** Remember what is selected in the address: a move replaces it, a choice can be gone back from. */
function remember(name, isMove) {
  clearTimeout(moving);
  if (isMove) moving = setTimeout(() => setAddress(name, "replaceState"), MOVE_DELAY);
  else setAddress(name, "pushState");
}

function setAddress(name, how) {
  const hash = address(name);
  if (location.hash === hash) return;
  try {
    history[how](null, "", hash);
  } catch {
    // The address of a frame in a notebook cannot be changed.
  }
}

const show = (element, isFocused = true) => {
  element.scrollIntoView({ block: "nearest" });
  if (isFocused) element.focus({ preventScroll: true });
};

function nameIn(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return "";
  }
}

/** A button that gives this text as a JSON file. */
const downloadButton = (name, textOf) =>
  button([make("span", { class: "long" }, "Download "), "JSON"], () => {
    const url = URL.createObjectURL(new Blob([textOf()], { type: "application/json" }));
    const file = name.replace(/[^\w.-]/g, "_").slice(0, 80);
    make("a", { href: url, download: `${file}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  });

/** The bar at the top: links to the parts of the page, `[id, label]` each, and the download. */
const pageHeader = (parts, download) =>
  make(
    "header",
    {},
    make(
      "nav",
      { "aria-label": "Parts of the page" },
      parts.map(([id, label]) => link(id, label)),
    ),
    download,
  );

/** Follow links within the page by `goTo(name, isMove)`, also the one in the address. */
function followLinks(goTo) {
  document.addEventListener("click", (event) => {
    const href = event.target.closest("a")?.getAttribute("href") ?? "";
    if (!href.startsWith("#") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    goTo(nameIn(href), false);
  });
  window.addEventListener("hashchange", () => goTo(nameIn(location.hash), true));
  if (location.hash.length > 1) goTo(nameIn(location.hash), true);
}
