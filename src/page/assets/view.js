// Pan and zoom of the picture.

const view = (() => {
  const [least, most] = [0.05, 3];
  let [x, y, zoom] = [0, 0, 1];
  let size = [1, 1];
  const svg = () => byId("picture");
  const frame = () => svg().getBoundingClientRect();

  function apply() {
    const layer = svg().querySelector(".layer");
    if (layer) layer.setAttribute("transform", `translate(${x} ${y}) scale(${zoom})`);
    svg().classList.toggle("far", zoom < 0.45);
  }

  function zoomTo(next, atX, atY) {
    next = Math.max(least, Math.min(most, next));
    x = atX - ((atX - x) * next) / zoom;
    y = atY - ((atY - y) * next) / zoom;
    zoom = next;
    apply();
  }

  function zoomBy(factor) {
    const box = frame();
    zoomTo(zoom * factor, box.width / 2, box.height / 2);
  }

  // What of the frame the panel leaves free.
  function free() {
    const box = frame();
    const panel = byId("panel");
    if (panel.hidden) return box;
    const covered = panel.getBoundingClientRect();
    const isBeside = covered.left > box.left + 200;
    const width = isBeside ? Math.min(box.width, covered.left - box.left) : box.width;
    const height = isBeside ? box.height : Math.min(box.height, Math.max(120, covered.top - box.top));
    return { width, height };
  }

  // All of the picture, or its upper end at a size that can be read.
  function fit(isWhole) {
    const { width, height } = free();
    const fits = Math.min(width / size[0], height / size[1], 1.25);
    zoom = Math.max(least, isWhole ? fits : Math.max(fits, Math.min(0.8, Math.max(0.35, width / size[0]))));
    x = (width - size[0] * zoom) / 2;
    y = size[1] * zoom > height ? 0 : (height - size[1] * zoom) / 2;
    apply();
  }

  // Brings a place to the middle.
  function centre(atX, atY) {
    const { width, height } = free();
    zoom = Math.max(zoom, 0.85);
    x = width / 2 - atX * zoom;
    y = height / 2 - atY * zoom;
    apply();
  }

  function pan(dx, dy) {
    x += dx;
    y += dy;
    apply();
  }

  // Fingers and the mouse alike: one moves the picture, two zoom it.
  function drags() {
    const held = new Map();
    let spread = 0;
    // How far it went since the button was pressed: a drag is no click.
    let moved = 0;
    const gap = () => {
      const [a, b] = [...held.values()];
      return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    };
    svg().addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      held.set(event.pointerId, event);
      moved = 0;
      if (held.size === 2) spread = gap();
    });
    window.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      held.set(event.pointerId, event);
      if (held.size === 1) {
        moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
        if (moved < 4) return;
        pan(event.clientX - before.clientX, event.clientY - before.clientY);
        svg().classList.add("dragging");
      } else if (held.size === 2 && spread > 0) {
        const [a, b] = [...held.values()];
        const box = frame();
        zoomTo((zoom * gap()) / spread, (a.clientX + b.clientX) / 2 - box.left, (a.clientY + b.clientY) / 2 - box.top);
        spread = gap();
      }
    });
    const end = (event) => {
      held.delete(event.pointerId);
      svg().classList.remove("dragging");
    };
    svg().addEventListener("click", (event) => moved >= 4 && event.stopPropagation(), { capture: true });
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  }

  return {
    centre,
    fit,
    pan,
    zoomBy,
    setSize(width, height) {
      size = [width, height];
    },
    start() {
      svg().addEventListener(
        "wheel",
        (event) => {
          event.preventDefault();
          const box = frame();
          if (event.shiftKey) return pan(-event.deltaY - event.deltaX, 0);
          // Lines and pages, as some mice report them, in pixels.
          const unit = event.deltaMode === 0 ? 1 : event.deltaMode === 1 ? 16 : box.height;
          const turn = Math.max(-240, Math.min(240, event.deltaY * unit));
          zoomTo(zoom * Math.exp(-turn / 400), event.clientX - box.left, event.clientY - box.top);
        },
        { passive: false },
      );
      drags();
      byId("nearer").addEventListener("click", () => zoomBy(1.3));
      byId("farther").addEventListener("click", () => zoomBy(1 / 1.3));
      byId("whole").addEventListener("click", () => fit(true));
    },
  };
})();
