// Runs a slow function for the newest value only: one call at a time, values in
// between are skipped, and the last one is always run.

export class Latest {
  // run: (value) => Promise; show: (result, value) => void, called in order.
  constructor(run, show, {fail, busy} = {}) {
    this.run = run;
    this.show = show;
    this.fail = fail || (() => {});
    this.busy = busy || (() => {});
    this.waiting = null;
    this.isRunning = false;
  }

  ask(value) {
    this.waiting = {value};
    if (!this.isRunning) this.loop();
  }

  async loop() {
    this.isRunning = true;
    this.busy(true);
    while (this.waiting) {
      const {value} = this.waiting;
      this.waiting = null;
      try {
        const result = await this.run(value);
        this.show(result, value);
      } catch (error) {
        this.fail(error, value);
      }
    }
    this.isRunning = false;
    this.busy(false);
  }
}
