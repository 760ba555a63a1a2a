// Requests to the server. They wait while it is away, and a session that it no
// longer knows is made again, from what the page holds.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Api {
  // restore: () => Promise, gives a new session what the old one held.
  // tell: (state) => void, with 'away', 'back' or 'lost'.
  constructor({restore, tell}) {
    this.session = null;
    this.restore = restore;
    this.tell = tell;
    this.recovering = null;
  }

  // A request of the session. path is a function, since names of photographs
  // change when they are uploaded again.
  async ask(path, options = {}) {
    for (let attempt = 0; ; attempt++) {
      if (this.recovering) await this.recovering;
      const session = this.session;
      try {
        return await this.once(path(), options);
      } catch (error) {
        const isAway = !(error instanceof ApiError);
        const isUnknown = error.status === 401;
        if (attempt >= 5 || !(isAway || isUnknown)) throw error;
        if (session === this.session) await this.recover(isAway);
      }
    }
  }

  async json(path, options) {
    return (await this.ask(path, options)).json();
  }

  async blob(path, options) {
    return (await this.ask(path, options)).blob();
  }

  // One request, without waiting for a server that is away.
  async once(path, {json, body, method} = {}) {
    const headers = {};
    if (this.session) headers['X-Session'] = this.session;
    if (json !== undefined) {
      headers['Content-Type'] = 'application/json';
      body = JSON.stringify(json);
    } else if (body !== undefined) {
      headers['Content-Type'] = 'application/octet-stream';
    }
    const answer = await fetch(`api/${path}`, {
      method: method || (body === undefined ? 'GET' : 'POST'),
      headers, body, cache: 'no-store', credentials: 'omit',
    });
    if (answer.ok) return answer;
    let reason = `the studio answered ${answer.status}`;
    try {
      reason = (await answer.json()).error || reason;
    } catch { /* not JSON */ }
    throw new ApiError(answer.status, reason);
  }

  async status() {
    return (await this.once('status')).json();
  }

  async start() {
    this.session = (await (await this.once(
        'session', {body: '', method: 'POST'})).json()).session;
  }

  // Waits for the server and makes the session again; once for all requests.
  recover(isAway) {
    this.recovering ??= this.recoverNow(isAway).finally(() => {
      this.recovering = null;
    });
    return this.recovering;
  }

  async recoverNow(isAway) {
    if (isAway) {
      this.tell('away');
      for (;;) {
        try {
          await this.status();
          break;
        } catch (error) {
          if (error instanceof ApiError) throw error;
          await pause(700);
        }
      }
      try {
        await this.once('photos');
        this.tell('back');
        return;
      } catch (error) {
        if (error.status !== 401) throw error;
      }
    }
    this.session = null;
    await this.start();
    await this.restore();
    this.tell(isAway ? 'back' : 'lost');
  }
}
