"use strict";
(() => {
  const map = document.getElementById("map"), hits = document.getElementById("hits"), chosen = document.getElementById("chosen");
  const of = (name) => Number(map.dataset[name]);
  const first = of("first"), perCell = of("perCell"), columns = of("columns"), pitch = of("pitch"), gap = of("gap"), left = of("left");
  const space = "http://www.w3.org/2000/svg";
  const buttons = [...document.querySelectorAll(".list button")];

  const draw = (x, y, width) => {
    const rect = document.createElementNS(space, "rect");
    rect.setAttribute("class", "hit");
    rect.setAttribute("x", x);
    rect.setAttribute("y", y);
    rect.setAttribute("width", Math.max(width, 30));
    rect.setAttribute("height", pitch - gap);
    hits.append(rect);
  };

  /* A segment is drawn row by row. */
  const light = (start, length) => {
    let at = (start - first) / perCell;
    const end = (start - first + length) / perCell;
    while (at < end) {
      const row = Math.floor(at / columns), stop = Math.min(end, (row + 1) * columns);
      draw(left + (at - row * columns) * pitch, row * pitch, (stop - at) * pitch - gap * Number(stop === (row + 1) * columns));
      at = stop;
    }
  };

  const pairs = (text, mark) => text.trim().split(" ").filter(Boolean).map((word) => word.split(mark));

  const tell = (button) => {
    const table = document.createElement("table");
    const line = (into, cells, kind) => {
      const row = into.appendChild(document.createElement("tr"));
      for (const cell of cells) row.appendChild(document.createElement(kind)).textContent = cell;
    };
    line(table.createTHead(), ["file block", "on device", "blocks", ""], "th");
    const body = table.createTBody();
    for (const [logical, physical, length, state] of pairs(button.dataset.runs, ":"))
      line(body, [logical, physical, length, state === "u" ? "unwritten" : ""], "td");
    const name = document.createElement("p");
    name.textContent = `${button.querySelector(".path").textContent} (inode ${button.dataset.inode})`;
    chosen.replaceChildren(name, table);
    chosen.hidden = false;
  };

  const choose = (button) => {
    const again = button.getAttribute("aria-pressed") === "true";
    for (const other of buttons) other.setAttribute("aria-pressed", "false");
    hits.replaceChildren();
    map.classList.toggle("chosen", !again);
    chosen.hidden = again;
    if (again) return;
    button.setAttribute("aria-pressed", "true");
    for (const [start, length] of pairs(button.dataset.segments, "+")) light(Number(start), Number(length));
    tell(button);
  };

  for (const button of buttons) button.addEventListener("click", () => choose(button));

  const tabs = [...document.querySelectorAll("[data-list]")];
  for (const tab of tabs) tab.addEventListener("click", () => {
    for (const other of tabs) {
      other.setAttribute("aria-pressed", String(other === tab));
      document.getElementById(other.dataset.list).hidden = other !== tab;
    }
  });

  const find = document.getElementById("find");
  if (find) find.addEventListener("input", () => {
    const part = find.value.toLowerCase();
    for (const button of buttons)
      button.parentElement.hidden = !button.querySelector(".path").textContent.toLowerCase().includes(part);
  });

  /* `#12` in the address chooses the file with that inode. */
  const inode = location.hash.slice(1) || map.dataset.show;
  const wanted = buttons.find((button) => button.dataset.inode === inode);
  if (wanted) choose(wanted);
})();
