// The runs of a storage, as a list that follows it.

const listed = data("list");
const finder = make("input", { type: "search", id: "search", oninput: drawRuns });
const box = make("div", {});
const state = make("p", { class: "muted", role: "status" });

function drawRuns() {
  const words = finder.value.trim().toLowerCase();
  const found = listed.runs.filter((run) =>
    [run.question, run.run_id, run.status, run.root_model].join("\n").toLowerCase().includes(words),
  );
  const lines = found.map((run) => [
    make("a", { href: `runs/${encodeURIComponent(run.run_id)}/` }, foreign(run.question || run.run_id)),
    make("span", { class: run.status === "running" ? "mark" : "" }, run.status),
    foreign(run.root_model),
    `${run.created} UTC`,
    foreign(run.run_id),
  ]);
  const heads = ["Question", "Status", "Model", "Begun", "Run"];
  const fresh = make("div", {}, table(plural(found.length, "run"), heads, lines));
  box.replaceChildren(replaceKeeping(box.firstChild ?? make("div", {}), fresh));
}

document.getElementById("page").replaceChildren(
  make(
    "main",
    {},
    make(
      "section",
      {},
      make("h1", {}, "Runs"),
      make("div", { class: "tools" }, make("label", { for: "search" }, "Search "), finder),
      state,
      box,
    ),
  ),
);
drawRuns();
follow(listed, data("live")[0], drawRuns, (is) => {
  state.textContent = is === "lost" ? "The connection is lost: this is the list so far." : "";
});
document.documentElement.dataset.ready = "true";
