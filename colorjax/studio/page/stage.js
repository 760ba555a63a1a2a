// The photograph on the screen: view, before and after, pointer and keyboard.

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];

export class Stage {
  // on: {stroke(points), point(x, y), move(x, y), key(event)}, in pixels of the
  // photograph.
  constructor(elements, on) {
    this.el = elements;
    this.on = on;
    this.width = this.height = 1;
    this.zoom = 0;
    this.cursor = null;
    this.stroke = null;
    this.brush = 0;
    this.marks = [];
    this.segments = null;
    this.lit = -1;
    this.isPainting = false;
    const {overlay, compare, viewport} = elements;
    overlay.addEventListener('pointerdown', (e) => this.down(e));
    overlay.addEventListener('pointermove', (e) => this.moved(e));
    overlay.addEventListener('pointerup', (e) => this.up(e));
    overlay.addEventListener('pointercancel', () => this.cancel());
    overlay.addEventListener('pointerleave', () => this.leave());
    overlay.addEventListener('keydown', (e) => this.key(e));
    overlay.addEventListener('focus', () => this.draw());
    overlay.addEventListener('blur', () => this.leave());
    compare.addEventListener('input', () => this.divide());
    elements.zoomIn.addEventListener('click', () => this.setZoom(1));
    elements.zoomOut.addEventListener('click', () => this.setZoom(-1));
    viewport.addEventListener('wheel', (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      this.setZoom(e.deltaY < 0 ? 1 : -1, e);
    }, {passive: false});
    new ResizeObserver(() => this.fit()).observe(viewport);
  }

  open(width, height) {
    this.width = width;
    this.height = height;
    this.zoom = 0;
    this.cursor = null;
    this.segments = null;
    this.el.compare.value = 0;
    this.fit();
    this.divide();
  }

  fit() {
    const {viewport, sheet, overlay, zoomLevel, zoomIn, zoomOut} = this.el;
    const style = getComputedStyle(viewport);
    const room = [
      viewport.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
      viewport.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom),
    ];
    const whole = Math.min(room[0] / this.width, room[1] / this.height);
    if (!(whole > 0)) return;
    const scale = whole * ZOOMS[this.zoom];
    sheet.style.width = `${Math.max(1, Math.round(this.width * scale))}px`;
    sheet.style.height = `${Math.max(1, Math.round(this.height * scale))}px`;
    const sharp = Math.min(window.devicePixelRatio || 1, 2);
    const side = Math.max(this.width, this.height) * scale * sharp;
    const limit = Math.min(1, 2400 / side);
    overlay.width = Math.round(this.width * scale * sharp * limit);
    overlay.height = Math.round(this.height * scale * sharp * limit);
    zoomLevel.textContent = `${Math.round(100 * ZOOMS[this.zoom])} %`;
    zoomIn.disabled = this.zoom === ZOOMS.length - 1;
    zoomOut.disabled = this.zoom === 0;
    this.draw();
  }

  setZoom(step, event) {
    const {viewport, sheet} = this.el;
    const next = Math.min(ZOOMS.length - 1, Math.max(0, this.zoom + step));
    if (next === this.zoom) return;
    const before = sheet.getBoundingClientRect();
    const frame = viewport.getBoundingClientRect();
    const at = event ? [event.clientX, event.clientY] :
      [frame.left + frame.width / 2, frame.top + frame.height / 2];
    const share = [(at[0] - before.left) / before.width, (at[1] - before.top) / before.height];
    this.zoom = next;
    this.fit();
    const after = sheet.getBoundingClientRect();
    viewport.scrollLeft += after.left + share[0] * after.width - at[0];
    viewport.scrollTop += after.top + share[1] * after.height - at[1];
  }

  divide() {
    const percent = Number(this.el.compare.value);
    this.el.before.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    this.el.divider.style.left = `${percent}%`;
  }

  setPainting(isPainting) {
    this.isPainting = isPainting;
    this.draw();
  }

  place(event) {
    const box = this.el.overlay.getBoundingClientRect();
    const clamp = (v, most) => Math.min(most - 1, Math.max(0, Math.floor(v * most)));
    return [clamp((event.clientX - box.left) / box.width, this.width),
      clamp((event.clientY - box.top) / box.height, this.height)];
  }

  down(event) {
    if (event.button !== 0) return;
    const {overlay} = this.el;
    overlay.focus({preventScroll: true});
    overlay.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.stroke = [this.place(event)];
    if (!this.isPainting) this.drag(event);
    this.draw();
  }

  drag(event) {
    const box = this.el.overlay.getBoundingClientRect();
    this.el.compare.value = 100 * (event.clientX - box.left) / box.width;
    this.divide();
  }

  moved(event) {
    this.cursor = this.place(event);
    if (this.stroke && event.pointerId === this.pointer) {
      if (this.isPainting) {
        const last = this.stroke[this.stroke.length - 1];
        const step = Math.max(this.width, this.height) / 400;
        if (Math.hypot(this.cursor[0] - last[0], this.cursor[1] - last[1]) >= step) {
          this.stroke.push(this.cursor);
        }
      } else {
        this.drag(event);
      }
    }
    this.hover();
  }

  up(event) {
    if (!this.stroke || event.pointerId !== this.pointer) return;
    const points = this.stroke;
    this.stroke = null;
    if (this.isPainting) this.on.stroke(points);
    this.draw();
  }

  cancel() {
    this.stroke = null;
    this.draw();
  }

  leave() {
    if (this.stroke) return;
    if (document.activeElement !== this.el.overlay || !this.byKey) this.cursor = null;
    this.hover();
  }

  key(event) {
    const step = Math.max(this.width, this.height) / (event.shiftKey ? 12 : 60);
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const move = moves[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move && !this.isPainting) {
      this.el.compare.value = Number(this.el.compare.value) + move[0] * (event.shiftKey ? 10 : 2);
      this.divide();
    } else if (move) {
      this.byKey = true;
      const [x, y] = this.cursor || [Math.floor(this.width / 2), Math.floor(this.height / 2)];
      this.cursor = [Math.round(Math.min(this.width - 1, Math.max(0, x + move[0] * step))),
        Math.round(Math.min(this.height - 1, Math.max(0, y + move[1] * step)))];
      this.hover();
    } else if ((event.key === 'Enter' || event.key === ' ') && this.isPainting) {
      this.cursor ||= [Math.floor(this.width / 2), Math.floor(this.height / 2)];
      this.on.stroke([this.cursor]);
    } else if (event.key === '+' || event.key === '=') {
      this.setZoom(1);
    } else if (event.key === '-') {
      this.setZoom(-1);
    } else if (event.key === 'Escape') {
      this.cancel();
    } else if (!this.on.key(event)) {
      return;
    }
    event.preventDefault();
  }

  hover() {
    const at = this.cursor;
    this.lit = at && this.segments ? this.segments.at(at[0] / this.width, at[1] / this.height) : -1;
    this.draw();
  }

  // Draws the cursor, the segment under it, the stroke and the marks of hints.
  draw() {
    const {overlay} = this.el;
    const pen = overlay.getContext('2d');
    const scale = overlay.width / this.width;
    pen.clearRect(0, 0, overlay.width, overlay.height);
    if (this.lit >= 0 && this.segments) this.segments.draw(pen, this.lit);
    for (const mark of this.marks) this.drawMark(pen, mark, scale);
    if (!this.isPainting) return;
    const ring = (x, y, radius) => {
      for (const [width, color] of [[3, 'rgb(0 0 0 / 55%)'], [1.4, '#fff']]) {
        pen.lineWidth = width;
        pen.strokeStyle = color;
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.stroke();
      }
    };
    if (this.stroke && this.brush) {
      pen.strokeStyle = 'rgb(90 180 220 / 55%)';
      pen.lineWidth = Math.max(1, this.brush * scale);
      pen.lineCap = pen.lineJoin = 'round';
      pen.beginPath();
      this.stroke.forEach(([x, y]) => pen.lineTo((x + 0.5) * scale, (y + 0.5) * scale));
      if (this.stroke.length === 1) {
        const [x, y] = this.stroke[0];
        pen.lineTo((x + 0.5) * scale + 0.1, (y + 0.5) * scale);
      }
      pen.stroke();
    }
    if (this.cursor) {
      const [x, y] = this.cursor.map((v) => (v + 0.5) * scale);
      if (this.brush) ring(x, y, Math.max(3, this.brush * scale / 2));
      if (!this.brush || this.byKey) ring(x, y, 4);
    }
  }

  drawMark(pen, {point, color, isActive}, scale) {
    const [x, y] = point.map((v) => (v + 0.5) * scale);
    pen.beginPath();
    pen.arc(x, y, isActive ? 9 : 7, 0, 7);
    pen.fillStyle = color;
    pen.fill();
    pen.lineWidth = isActive ? 3 : 2;
    pen.strokeStyle = '#fff';
    pen.stroke();
    pen.lineWidth = 1;
    pen.strokeStyle = 'rgb(0 0 0 / 60%)';
    pen.beginPath();
    pen.arc(x, y, isActive ? 11 : 8.5, 0, 7);
    pen.stroke();
  }
}

// The segments of a photograph, from a picture of their numbers.
export class Segments {
  static async from(blob) {
    const image = await createImageBitmap(blob, {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
    const canvas = new OffscreenCanvas(image.width, image.height);
    const pen = canvas.getContext('2d', {willReadFrequently: true});
    pen.drawImage(image, 0, 0);
    const {data} = pen.getImageData(0, 0, image.width, image.height);
    const numbers = new Uint32Array(image.width * image.height);
    for (let i = 0; i < numbers.length; i++) numbers[i] = data[4 * i] + 256 * data[4 * i + 1];
    return new Segments(numbers, image.width, image.height);
  }

  constructor(numbers, width, height) {
    Object.assign(this, {numbers, width, height, drawn: -1});
    this.canvas = new OffscreenCanvas(width, height);
  }

  at(x, y) {
    const clamp = (v, most) => Math.min(most - 1, Math.max(0, Math.floor(v * most)));
    return this.numbers[clamp(y, this.height) * this.width + clamp(x, this.width)];
  }

  draw(pen, number) {
    if (this.drawn !== number) {
      const {numbers, width, height} = this;
      const small = this.canvas.getContext('2d');
      const image = small.createImageData(width, height);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const i = y * width + x;
          if (numbers[i] !== number) continue;
          const isEdge = x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
            numbers[i - 1] !== number || numbers[i + 1] !== number ||
            numbers[i - width] !== number || numbers[i + width] !== number;
          image.data.set(isEdge ? [255, 255, 255, 235] : [90, 180, 220, 70], 4 * i);
        }
      }
      small.putImageData(image, 0, 0);
      this.drawn = number;
    }
    pen.imageSmoothingEnabled = true;
    pen.drawImage(this.canvas, 0, 0, pen.canvas.width, pen.canvas.height);
  }
}
