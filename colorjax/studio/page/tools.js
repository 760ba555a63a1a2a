// The tools: one coloring for the whole, regions, colors, and grey.

import {$, radios, say} from './controls.js';
import {Latest} from './latest.js';
import {Picker} from './picker.js';
import {Segments, Stage} from './stage.js';

const HELP = {
  whole: 'Take a coloring. Drag over the photograph to see it before and after.',
  region: 'Take a coloring, then click the part that gets it.',
  hint: 'Click or paint where a color is wrong, then choose the color.',
  grey: 'Click or paint the parts that stay grey.',
};
const KEYS = {w: 'whole', r: 'region', c: 'hint', g: 'grey'};

export class Tools {
  // change(entries, words) takes choices; photo() is the present photograph.
  constructor(api, {change, photo}) {
    this.api = api;
    this.change = change;
    this.photo = photo;
    this.tool = 'whole';
    this.shape = 'segment';
    this.makesGrey = true;
    this.coloring = null; // that regions get
    this.active = -1; // the hint whose color is chosen
    this.pending = null; // a stroke that has no color yet
    this.color = null;
    this.segments = new Map();
    this.stage = new Stage({
      viewport: $('viewport'), sheet: $('sheet'), overlay: $('overlay'), before: $('before'),
      divider: $('divider'), compare: $('compare'), zoomIn: $('zoom-in'), zoomOut: $('zoom-out'),
      zoomLevel: $('zoom-level'),
    }, {stroke: (points) => this.use(points), key: (event) => this.key(event)});
    this.picker = new Picker((color) => this.pick(color));
    this.markTool = radios($('tools'), (button) => this.choose(button.dataset.tool));
    radios($('shapes'), (button) => { this.shape = button.dataset.shape; this.arrange(); });
    radios($('grey-options'), (button) => { this.makesGrey = button.dataset.grey === 'true'; });
    $('size').addEventListener('change', () => this.arrange());
    $('brush').addEventListener('input', () => this.arrange());
    $('remove-hint').addEventListener('click', () => this.removeHint());
    $('all-grey').addEventListener('click', () => {
      const isGrey = this.photo().history.now.mask.start === 'grey';
      this.change({mask: {start: isGrey ? 'color' : 'grey', edits: []}},
          isGrey ? 'Everything is colored.' : 'Everything is grey; choose Color and click what is colored.');
    });
    this.likely = new Latest(
        ({photo, doc, x, y}) => this.api.json(() => `photos/${photo.id}/colors`, {json: {choices: doc, x, y}}),
        (found, asked) => { if (asked.photo === this.photo()) this.picker.offer(found); });
    this.choose('whole');
  }

  choose(tool) {
    this.tool = tool;
    document.body.dataset.tool = tool;
    this.markTool($('tools').querySelector(`[data-tool="${tool}"]`));
    this.pending = null;
    if (tool === 'region' && this.photo()) this.coloring ??= this.photo().history.now.coloring;
    this.arrange();
    if (this.photo()) this.show(this.photo(), this.photo().history.now);
    this.onSelect?.();
  }

  // Shows the options that the tool has.
  arrange() {
    const {tool} = this;
    const isArea = tool === 'region' || tool === 'grey';
    const isBrush = tool === 'hint' || (isArea && this.shape === 'brush');
    $('tool-help').textContent = HELP[tool];
    $('area-options').hidden = !isArea;
    $('grey-options').hidden = $('all-grey').hidden = tool !== 'grey';
    $('size-row').hidden = isBrush;
    $('brush-row').hidden = !isBrush;
    $('picker').hidden = tool !== 'hint';
    this.stage.brush = isBrush ? this.width : 0;
    this.stage.setPainting(tool !== 'whole');
    this.loadSegments(isArea && !isBrush);
  }

  get width() {
    const {facts} = this.photo() || {facts: {width: 100, height: 100}};
    const share = Number($('brush').value) / 100;
    return Math.max(1, Math.round(Math.min(facts.width, facts.height) * (0.004 + 0.25 * share * share)));
  }

  async loadSegments(isNeeded) {
    const photo = this.photo();
    this.stage.segments = null;
    this.stage.hover();
    if (!isNeeded || !photo) return;
    const size = $('size').value;
    const key = `${photo.key} ${size}`;
    if (!this.segments.has(key)) {
      this.segments.set(key, this.api.blob(() => `photos/${photo.id}/segments?size=${size}`).then(Segments.from));
    }
    try {
      const found = await this.segments.get(key);
      if (this.photo() === photo && $('size').value === size && !$('size-row').hidden && !$('area-options').hidden) {
        this.stage.segments = found;
        this.stage.hover();
      }
    } catch {
      this.segments.delete(key);
    }
  }

  open() {
    this.coloring = null;
    this.active = -1;
    this.pending = null;
    this.picker.set(null);
    $('swatches').replaceChildren();
    this.color = null;
    this.choose(this.tool);
  }

  forget() {
    this.segments.clear();
    this.arrange();
  }

  // Draws what belongs to the present choices.
  show(photo, doc) {
    if (this.active >= doc.hints.length) this.active = -1;
    const marks = this.tool === 'hint' ? doc.hints.map(({color, points}, i) => (
      {point: points[0], color, isActive: i === this.active})) : [];
    if (this.tool === 'hint' && this.pending) marks.push({point: this.pending[0], color: '#8888', isActive: true});
    this.stage.marks = marks;
    this.stage.draw();
    $('remove-hint').disabled = this.active < 0 && !this.pending;
    $('all-grey').textContent = doc.mask.start === 'grey' ? 'Color everything' : 'Make everything grey';
  }

  // A coloring was chosen among those side by side.
  take(coloring) {
    if (this.tool === 'region') {
      this.coloring = coloring;
      say('Now click the part that gets this coloring.');
    } else {
      this.coloring = null;
      this.change({coloring});
    }
  }

  selected(doc) {
    return this.tool === 'region' && this.coloring ? this.coloring : doc.coloring;
  }

  // The tool is used at some points of the photograph.
  use(points) {
    const doc = this.photo().history.now;
    const place = this.shape === 'segment' ? {at: points[points.length - 1], size: $('size').value} :
      {points, width: this.width};
    if (this.tool === 'region') {
      this.change({regions: [...doc.regions, {coloring: this.selected(doc), ...place}]}, 'This part has the coloring now.');
    } else if (this.tool === 'grey') {
      this.change({mask: {...doc.mask, edits: [...doc.mask.edits, {grey: this.makesGrey, ...place}]}},
          this.makesGrey ? 'This part is grey now.' : 'This part is colored now.');
    } else {
      this.hint(points, doc);
    }
  }

  hint(points, doc) {
    const [x, y] = points[0];
    const reach = Math.max(this.photo().facts.width, this.photo().facts.height) / 50 / (1 + this.stage.zoom);
    const near = points.length > 1 ? -1 : doc.hints.findLastIndex((one) =>
      Math.hypot(one.points[0][0] - x, one.points[0][1] - y) < reach);
    this.likely.ask({photo: this.photo(), doc, x, y});
    if (near >= 0) {
      this.active = near;
      this.pending = null;
      this.color = doc.hints[near].color;
      this.picker.set(this.color);
      this.show(this.photo(), doc);
    } else if (this.color) {
      this.add(points, this.color);
    } else {
      this.pending = points;
      this.active = -1;
      this.show(this.photo(), doc);
      say('Choose the color for this place.');
    }
  }

  add(points, color) {
    const {hints} = this.photo().history.now;
    this.active = hints.length;
    this.pending = null;
    this.change({hints: [...hints, {color, points, width: this.width}]}, 'The color is there.');
  }

  pick(color) {
    this.color = color;
    const {hints} = this.photo().history.now;
    if (this.pending) this.add(this.pending, color);
    else if (this.active >= 0) this.change({hints: hints.map((one, i) => (i === this.active ? {...one, color} : one))});
  }

  removeHint() {
    const {hints} = this.photo().history.now;
    if (this.pending) {
      this.pending = null;
      this.show(this.photo(), this.photo().history.now);
      return;
    }
    const left = hints.filter((_, i) => i !== this.active);
    this.active = -1;
    this.change({hints: left}, 'The color is removed.');
  }

  // A key that the stage does not use itself; returns whether it was used.
  key(event) {
    if (KEYS[event.key]) this.choose(KEYS[event.key]);
    else if (event.key === '[' || event.key === ']') {
      $('brush').value = Number($('brush').value) + (event.key === ']' ? 5 : -5);
      this.arrange();
    } else if (event.key === 'Delete' && this.tool === 'hint') this.removeHint();
    else if (/^[1-9]$/.test(event.key)) $('colorings').children[Number(event.key) - 1]?.click();
    else return false;
    return true;
  }
}
