// Undo and redo without end: a list of choices, each a small JSON document.

export const START = Object.freeze({
  version: 1, model: null, coloring: {index: 0, seed: null, strength: 1},
  saturation: null, regions: [], mask: {start: 'color', edits: []}, hints: [],
  reference: null,
});

export class History {
  constructor(docs = [START], at = docs.length - 1) {
    this.docs = docs;
    this.at = at;
  }

  get now() {
    return this.docs[this.at];
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.docs.length - 1;
  }

  // Adds choices that differ from the present ones in some entries.
  change(entries) {
    const next = {...this.now, ...entries};
    if (JSON.stringify(next) === JSON.stringify(this.now)) return false;
    this.docs.splice(this.at + 1);
    this.docs.push(next);
    this.at++;
    return true;
  }

  undo() {
    if (this.canUndo) this.at--;
  }

  redo() {
    if (this.canRedo) this.at++;
  }
}

export const sameColoring = (a, b) =>
  a.index === b.index && (a.seed ?? null) === (b.seed ?? null) &&
  (a.strength ?? 1) === (b.strength ?? 1);
