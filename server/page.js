// Swaps the parts of the page that changed. The page is whole without it.
(() => {
  "use strict";
  const live = document.getElementById("live");
  const stale = document.getElementById("stale");
  const since = document.getElementById("since");
  const known = new Map();
  let heard = new Date();

  // Where a grid of rounds has to be scrolled to for its latest round to be seen.
  const latest = (box) => {
    const row = box.querySelector("tbody tr");
    const done = [...row.querySelectorAll("td:not(.ahead, .num)")].pop();
    const wanted = done ? done.offsetLeft + 3 * done.offsetWidth - box.clientWidth : 0;
    return Math.max(0, Math.min(wanted, box.scrollWidth - box.clientWidth));
  };
  const newest = (root) => {
    for (const box of root.querySelectorAll(".latest > .scroll")) {
      box.scrollLeft = latest(box);
    }
  };
  // What a reader opened or scrolled stays as it was.
  const keep = (before, after) => {
    const pairs = (what) => {
      const [old, fresh] = [before, after].map((part) => [...part.querySelectorAll(what)]);
      return old.length === fresh.length ? old.map((one, at) => [one, fresh[at]]) : [];
    };
    for (const [one, other] of pairs("details")) other.open = one.open;
    return pairs(".scroll").map(([one, other]) => {
      const left = one.scrollLeft;
      const grid = one.parentElement.classList.contains("latest");
      const follows = grid && Math.abs(left - latest(one)) < 4;
      return () => { other.scrollLeft = follows ? latest(other) : left; };
    });
  };
  const swap = (text) => {
    const parts = [...new DOMParser().parseFromString(text, "text/html").body.children];
    const ids = parts.map((part) => part.id).join("\n");
    const same = ids === [...live.children].map((part) => part.id).join("\n");
    for (const part of same ? parts : []) {
      const told = part.outerHTML;
      if (known.get(part.id) === told) continue;
      known.set(part.id, told);
      const before = document.getElementById(part.id);
      const scroll = keep(before, part);
      before.replaceWith(part);
      scroll.forEach((put) => put());
    }
    if (same) return;
    known.clear();
    parts.forEach((part) => known.set(part.id, part.outerHTML));
    live.replaceChildren(...parts);
    newest(live);
  };
  const look = async () => {
    if (!document.hidden) {
      try {
        const asked = { cache: "no-store", signal: AbortSignal.timeout(10000) };
        const answer = await fetch("/fragment", asked);
        if (!answer.ok) throw new Error(answer.status);
        swap(await answer.text());
        heard = new Date();
        stale.hidden = true;
      } catch {
        since.textContent = heard.toLocaleTimeString();
        stale.hidden = false;
      }
    }
    setTimeout(look, 3000);
  };
  for (const part of live.children) known.set(part.id, part.outerHTML);
  newest(live);
  setTimeout(look, 3000);
})();
