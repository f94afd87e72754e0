// HTTP/1 responses: the same bytes in any cut mean the same, nothing is heard after a fault, every exchange ends once, a connection is
// reusable only when nothing was left over, and whatever Node's parser reads too, it reads as the same response.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { LENGTH_UNKNOWN } from "../../src/wire/http/content-length.ts";
import { ListFields } from "../../src/wire/http/fields.ts";
import type { HeaderList } from "../../src/wire/http/header-list.ts";
import { type ClientExchange, Http1ClientConnection, type Http1ClientHandler, type OutgoingRequest } from "../../src/wire/http1/client-connection.ts";
import { below } from "./choices.ts";
import { endToEnd, must, pieces, responses } from "./http1-grammar.ts";
import { askReference, type ReferenceReading } from "./reference-http.ts";

export const name = "http1-response";

const REQUEST: OutgoingRequest = {
  method: "GET", target: "/", host: "web", fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN, acceptsTrailers: true, expectsContinue: false, upgrade: null,
};

interface Reading {
  readonly interims: readonly number[];
  readonly status: number;
  readonly fields: readonly string[];
  readonly body: string;
  readonly trailers: readonly string[];
  /** Ended as it should; by the end of the connection, too. */
  readonly done: boolean;
  readonly fault: string | null;
  readonly reusable: boolean;
}

export async function run(options: { seed: number; iterations: number }): Promise<{ iterations: number }> {
  const random = seededRandom(options.seed);
  const inputs: { bytes: string; isHead: boolean }[] = [];
  const readings: Reading[] = [];
  for (let i = 0; i < options.iterations; i++) {
    const input = { bytes: responses(random), isHead: below(random, 10) === 0 };
    inputs.push(input);
    try {
      const whole = read([Buffer.from(input.bytes, "latin1")], input.isHead, null);
      const cut = read(pieces(random, input.bytes), input.isHead, random);
      must(JSON.stringify(cut) === JSON.stringify(whole), `in pieces it reads\n  ${JSON.stringify(cut)}\nand whole\n  ${JSON.stringify(whole)}`);
      readings.push(whole);
    } catch (error) {
      throw failure(options.seed, i, input.bytes, error);
    }
  }
  const opinions = await askReference("response", inputs);
  for (const [i, opinion] of opinions.entries()) {
    try {
      compare(readings[i]!, opinion);
    } catch (error) {
      throw failure(options.seed, i, inputs[i]!.bytes, error);
    }
  }
  return { iterations: options.iterations };
}

function failure(seed: number, i: number, input: string, cause: unknown): Error {
  return new Error(`http1-response fuzz: seed ${seed}, iteration ${i}: ${cause instanceof Error ? cause.message : String(cause)}\ninput ${JSON.stringify(input)}`, { cause });
}

function read(parts: readonly Uint8Array[], isHead: boolean, random: Random | null): Reading {
  const interims: number[] = [];
  let status = 0;
  const fields: HeaderList = [];
  let body = "";
  let trailers: readonly string[] = [];
  let done = false;
  let closes = 0;
  let fault: string | null = null;
  let pausing = false;
  const handler: Http1ClientHandler = {
    onInformational: (_, response) => {
      must(status === 0 && response.status < 200 && response.status !== 101, "an interim response out of place");
      interims.push(response.status);
    },
    onResponse: (_, response, endStream) => {
      must(status === 0 && closes === 0 && response.status >= 200, "a response out of place");
      status = response.status;
      response.fields.appendTo(fields);
      done = endStream;
    },
    onBody: (_, bytes) => {
      must(status !== 0 && !done && closes === 0 && bytes.length > 0, "body out of place");
      body += Buffer.from(bytes).toString("latin1");
      if (random !== null && below(random, 4) === 0) {
        connection.pause();
        pausing = true;
      }
    },
    onResponseEnd: (_, list) => {
      must(status !== 0 && !done && closes === 0, "an end out of place");
      done = true;
      trailers = [...list];
    },
    onSendable: () => {},
    onAborted: () => must(closes === 0 && !done, "aborted after its end"),
    onClosed: () => void closes++,
    onError: (error) => {
      must(fault === null, "two faults");
      fault = error.code;
    },
    onOutput: () => {},
    onWantsInput: () => {},
    onFinished: () => {},
  };
  const connection = new Http1ClientConnection({ handler });
  const exchange: ClientExchange | null = connection.request({ ...REQUEST, method: isHead ? "HEAD" : "GET" }, true);
  must(exchange !== null, "no exchange");
  for (const part of parts) {
    connection.receive(part);
    while (pausing) {
      pausing = false;
      connection.resume();
    }
    part.fill(0x58);
  }
  const { reusable } = connection;
  must(!reusable || (done && closes === 1 && fault === null), "reusable after an unclean exchange");
  connection.receiveEnd();
  must(closes === 1, `closed ${closes} times`);
  return { interims, status, fields, body, trailers, done, fault, reusable };
}

/** The final response; the interim ones have no body and no say. */
function compare(ours: Reading, opinion: ReferenceReading): void {
  if (!ours.done) return;
  const at = opinion.messages.findIndex((message) => message.status >= 200);
  // Node takes the protocol change of any 1xx with Upgrade, and stops.
  if (opinion.stop) return;
  const other = opinion.messages[at];
  if (other === undefined || !other.done) {
    must(opinion.error !== null, `a response for us, none for Node: ${JSON.stringify(ours)}`);
    return;
  }
  must(other.status === ours.status, `status ${ours.status}, for Node ${other.status}`);
  const fields = endToEnd(other.fields);
  must(JSON.stringify(ours.fields) === JSON.stringify(fields), `fields ${JSON.stringify(ours.fields)}, for Node ${JSON.stringify(fields)}`);
  // Node reads a body after 204 and 304 only if it is told to; it is not.
  must(ours.body === other.body, `body ${JSON.stringify(ours.body)}, for Node ${JSON.stringify(other.body)}`);
  const trailers = other.trailers.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text));
  must(JSON.stringify(ours.trailers) === JSON.stringify(trailers), `trailers ${JSON.stringify(ours.trailers)}, for Node ${JSON.stringify(trailers)}`);
  if (ours.reusable) must(opinion.messages.length === at + 1, "reusable for us, while Node sees another message");
}
