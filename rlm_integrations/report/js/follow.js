// Follows what the page shows: changes come as events from the address that the page came from.

const UPDATE_DELAY = 200; // milliseconds between two updates
const MAX_TRIES = 30; // to connect again, one a second
const UPDATE_SHARE = 5; // and this many times as long as an update takes

/** Apply changes to plain data: at each place a value is set, or items are added to a list. */
function applyChanges(target, changes) {
  for (const { at, set, add } of changes) {
    const place = at.slice(0, -1).reduce((inner, key) => inner[key], target);
    const last = at[at.length - 1];
    if (add) for (const item of add) place[last].push(item);
    else place[last] = set;
  }
}

/**
 * Keep `target` as the server's, and call `update(places)` after changes, with the first two keys
 * of each. `say(state)` is told "live", "lost" and "ended".
 */
function follow(target, number, update, say) {
  const places = new Set();
  let isHeld = false; // an element must not be replaced while it is pressed
  let timer = null;
  let free = 0; // when the next update may begin
  const updateSoon = () => {
    if (timer !== null || isHeld || !places.size) return;
    timer = setTimeout(updateNow, Math.max(0, free - performance.now()));
  };
  const updateNow = () => {
    timer = null;
    if (isHeld) return;
    const begun = performance.now();
    const changed = new Set(places);
    places.clear();
    update(changed);
    const end = performance.now();
    free = end + Math.max(UPDATE_DELAY, UPDATE_SHARE * (end - begun));
  };
  const hold = (value) => () => {
    isHeld = value;
    updateSoon();
  };
  document.addEventListener("pointerdown", hold(true), true);
  for (const end of ["pointerup", "pointercancel", "dragend", "contextmenu"])
    document.addEventListener(end, () => setTimeout(hold(false)), true); // after the click

  let tries = 0;
  const source = new EventSource(`events?after=${number}`);
  source.addEventListener("open", () => {
    tries = 0;
    say("live");
  });
  source.addEventListener("state", (event) => {
    Object.assign(target, JSON.parse(event.data));
    places.add("*");
    updateSoon();
  });
  source.addEventListener("changes", (event) => {
    const changes = JSON.parse(event.data);
    applyChanges(target, changes);
    for (const { at } of changes) places.add(at.slice(0, 2).join("."));
    updateSoon();
  });
  source.addEventListener("end", () => {
    source.close();
    say("ended");
  });
  source.addEventListener("error", () => {
    if (++tries > MAX_TRIES) source.close();
    say("lost");
  });
}

const FOCUSABLE = "a[href], button, input, select, summary, [tabindex]";
const SCROLLING = "pre, .wide, .list, .reader";

/**
 * Put an element in the place of another one, unless both are equal; what is open, focused and
 * scrolled stays so. Returns the one that is in the page.
 */
function replaceKeeping(old, fresh) {
  const open = old.querySelectorAll("details");
  fresh.querySelectorAll("details").forEach((each, at) => (each.open = Boolean(open[at]?.open)));
  if (old.isEqualNode(fresh)) return old;
  const focused = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const scrolled = [...old.querySelectorAll(SCROLLING)].map((each) => [
    each.scrollLeft,
    each.scrollTop,
  ]);
  old.replaceWith(fresh);
  fresh.querySelectorAll(SCROLLING).forEach((each, at) => {
    if (scrolled[at]) [each.scrollLeft, each.scrollTop] = scrolled[at];
  });
  if (focused >= 0) fresh.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  return fresh;
}
