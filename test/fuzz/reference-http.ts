// Asks Node's HTTP/1 parser, in a process of its own, what it makes of messages. One question at a time.

const READER = new URL("./reference-http-parser.mjs", import.meta.url).pathname;

export interface ReferenceMessage {
  /** 10 or 11. */
  readonly minor: number;
  readonly method: string;
  readonly url: string;
  readonly status: number;
  /** name, value, … as they came. */
  readonly fields: readonly string[];
  readonly body: string;
  readonly trailers: readonly string[];
  readonly upgrade: boolean;
  readonly keepAlive: boolean;
  readonly done: boolean;
}

export interface ReferenceReading {
  readonly messages: readonly ReferenceMessage[];
  readonly error: string | null;
  /** It stopped at a request for a tunnel or another protocol. */
  readonly stop: boolean;
}

export interface ReferenceInput {
  /** One char per byte. */
  readonly bytes: string;
  /** Response: to a HEAD. */
  readonly isHead: boolean;
}

interface Reader {
  readonly ask: (line: string) => Promise<string>;
}

let reader: Reader | null = null;

function startReader(): Reader {
  const node = Bun.which("node");
  if (node === null) throw new Error("the second opinion on HTTP/1 is Node's parser: put node (20 or later) on the PATH");
  const child = Bun.spawn([node, READER], { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
  child.unref();
  const stream = child.stdout.getReader();
  const decoder = new TextDecoder();
  let pending = "";
  return {
    ask: async (line) => {
      child.stdin.write(`${line}\n`);
      await child.stdin.flush();
      for (;;) {
        const at = pending.indexOf("\n");
        if (at >= 0) {
          const answer = pending.slice(0, at);
          pending = pending.slice(at + 1);
          return answer;
        }
        const { done, value } = await stream.read();
        if (done) throw new Error("Node's parser ended; its message is above");
        pending += decoder.decode(value, { stream: true });
      }
    },
  };
}

export async function askReference(kind: "request" | "response", inputs: readonly ReferenceInput[]): Promise<ReferenceReading[]> {
  reader ??= startReader();
  return JSON.parse(await reader.ask(JSON.stringify({ kind, inputs }))) as ReferenceReading[];
}
