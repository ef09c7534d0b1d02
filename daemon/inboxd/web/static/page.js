// The page is whole without this. With it, what changed is put in place while one looks: on a hint from the server
// the same address is fetched again, and every element with an id is made to look like its new self, node by node,
// so that nothing flickers and the focus, the scroll position and open details stay.
"use strict";

(() => {
  const AGAIN_MS = 10000; // after the server refused the stream, or was gone
  let seen = document.body.dataset.live;
  let busy = false;
  let missed = false;
  let copied = null; // the id of the command that was copied last

  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

  function dress(old, fresh) {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    dress(old, fresh);
    const known = new Map();
    for (const child of old.children) if (child.id) known.set(child.id, child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const same = next.id && known.get(next.id);
      if (same && same !== at) {
        old.insertBefore(same, at);
        at = same;
      }
      if (at && alike(at, next)) {
        morph(at, next);
        at = at.nextSibling;
      } else {
        const added = document.importNode(next, true);
        if (added.tagName === "TR") {
          added.classList.add("fresh");
          added.addEventListener("animationend", () => added.removeAttribute("class"), { once: true });
        }
        old.insertBefore(added, at);
      }
    }
    while (at) {
      const rest = at.nextSibling;
      at.remove();
      at = rest;
    }
  }

  // What only the browser knows or can do: the reader's own time beside UTC, and a button that copies a command.
  function enhance(page) {
    for (const time of page.querySelectorAll("time[datetime]")) {
      const when = new Date(time.getAttribute("datetime"));
      if (Number.isNaN(when.getTime()) || time.querySelector(".unseen")) continue;
      const local = when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
      time.title = `${time.getAttribute("datetime")}\n${local} here`;
      const said = page.createElement("span");
      said.className = "unseen";
      said.textContent = ` UTC, ${local} here`;
      time.append(said);
    }
    for (const code of page.querySelectorAll(".command code")) {
      if (code.nextElementSibling) continue;
      const button = page.createElement("button");
      button.type = "button";
      button.dataset.copies = code.id;
      label(button);
      code.after(button);
    }
  }

  // What is copied is told by the state, not by the node: a refresh makes the button anew while one looks at it.
  function label(button) {
    const done = button.dataset.copies === copied;
    button.textContent = done ? "Copied" : "Copy";
    button.setAttribute("aria-label", done ? "The line is copied" : "Copy the line");
  }

  async function copy(button) {
    const code = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // no clipboard on a page that came without TLS from another host
      document.execCommand("copy");
    }
    copied = code.id;
    for (const each of document.querySelectorAll("[data-copies]")) label(each);
  }

  async function refresh() {
    if (busy || document.hidden) {
      missed = true;
      return;
    }
    busy = true;
    missed = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      enhance(page);
      for (const part of ["state", "main", "foot"]) {
        const old = document.getElementById(part);
        const fresh = page.getElementById(part);
        if (old && fresh && !(part === "main" && old.querySelector("form"))) morph(old, fresh);
      }
      seen = page.body.dataset.live;
    } catch {
      // the server is gone for a moment: the stream will say when it is back
    } finally {
      busy = false;
      if (missed) refresh();
    }
  }

  function listen() {
    const stream = new EventSource("/events");
    stream.addEventListener("version", (event) => {
      if (event.data !== seen) refresh();
    });
    stream.addEventListener("error", () => {
      if (stream.readyState !== EventSource.CLOSED) return;
      stream.close();
      setTimeout(listen, AGAIN_MS);
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && missed) refresh();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copies]");
    if (button) copy(button);
  });
  enhance(document);
  listen();
})();
