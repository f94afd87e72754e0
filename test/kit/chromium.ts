// Headless Chromium, driven over its DevTools protocol: as much of it as opening pages, acting on them and looking at cookies takes.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The box around the tests is the sandbox; certificates are the tests' own; nothing is asked of the world. */
const FLAGS = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--ignore-certificate-errors", "--remote-debugging-port=0",
];

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly sessionId?: string;
  readonly params?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

export interface ChromiumCookie {
  readonly name: string;
  readonly value: string;
  readonly domain: string;
  readonly path: string;
  readonly httpOnly: boolean;
  readonly secure: boolean;
  readonly sameSite?: string;
}

export class Chromium implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"ignore", "ignore", "pipe">;
  readonly #socket: WebSocket;
  readonly #profile: string;
  readonly #answers = new Map<number, (message: Message) => void>();
  readonly #loads: (() => void)[] = [];
  #lastId = 0;
  #page = "";

  private constructor(process: Bun.Subprocess<"ignore", "ignore", "pipe">, socket: WebSocket, profile: string) {
    this.#process = process;
    this.#socket = socket;
    this.#profile = profile;
    socket.onmessage = ({ data }) => {
      const message: Message = JSON.parse(String(data));
      if (message.id !== undefined) this.#answers.get(message.id)?.(message);
      else if (message.method === "Page.loadEventFired") for (const loaded of this.#loads.splice(0)) loaded();
    };
  }

  static async start(): Promise<Chromium> {
    const profile = mkdtempSync(join(tmpdir(), "weft-chromium-"));
    const process = Bun.spawn(["chromium", ...FLAGS, `--user-data-dir=${profile}`, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
    const socket = new WebSocket(await addressIn(process.stderr));
    await new Promise((done, fail) => {
      socket.onopen = done;
      socket.onerror = fail;
    });
    const chromium = new Chromium(process, socket, profile);
    const { targetId } = (await chromium.#call("Target.createTarget", { url: "about:blank" })) as { readonly targetId: string };
    const { sessionId } = (await chromium.#call("Target.attachToTarget", { targetId, flatten: true })) as { readonly sessionId: string };
    chromium.#page = sessionId;
    await chromium.#call("Page.enable");
    return chromium;
  }

  /** Opens an address; resolves when a page is loaded, after all redirects. */
  open(url: string): Promise<void> {
    return this.#untilLoaded(() => this.#call("Page.navigate", { url }));
  }

  /** Does something in the page that leads to another, e.g. sends a form. */
  leave(expression: string): Promise<void> {
    return this.#untilLoaded(() => this.evaluate(expression));
  }

  /** The value of an expression in the page, awaited. */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = (await this.#call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })) as { readonly result: { readonly value?: unknown }; readonly exceptionDetails?: unknown };
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return result.value;
  }

  async text(): Promise<string> {
    return String(await this.evaluate("document.body.innerText"));
  }

  async address(): Promise<string> {
    return String(await this.evaluate("location.href"));
  }

  async cookies(host: string): Promise<readonly ChromiumCookie[]> {
    const { cookies } = (await this.#call("Storage.getCookies")) as { readonly cookies: readonly ChromiumCookie[] };
    return cookies.filter(({ domain }) => domain === host);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#call("Browser.close").catch(() => this.#process.kill());
    await this.#process.exited;
    this.#socket.close();
    rmSync(this.#profile, { recursive: true, force: true });
  }

  async #untilLoaded(act: () => Promise<unknown>): Promise<void> {
    const loaded = new Promise<void>((done) => this.#loads.push(done));
    await act();
    await loaded;
  }

  #call(method: string, params: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const id = ++this.#lastId;
    return new Promise((done, fail) => {
      this.#answers.set(id, ({ result, error }) => {
        this.#answers.delete(id);
        if (error === undefined) done(result);
        else fail(new Error(`${method}: ${error.message}`));
      });
      const isOfPage = !/^(?:Target|Browser|Storage)\./.test(method);
      this.#socket.send(JSON.stringify({ id, method, params, ...(isOfPage ? { sessionId: this.#page } : {}) }));
    });
  }
}

async function addressIn(output: ReadableStream<Uint8Array>): Promise<string> {
  const reader = output.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`chromium ended: ${text}`);
    text += decoder.decode(value, { stream: true });
    const address = /DevTools listening on (ws:\S+)/.exec(text)?.[1];
    if (address === undefined) continue;
    // Whatever it says from now on must not fill the pipe.
    void (async () => {
      while (!(await reader.read()).done);
    })();
    return address;
  }
}
