// A client that sends bytes as they are and reads answers of HTTP/1.1 by their framing alone.

import { connect } from "node:net";

export interface Answer {
  /** 0 when the connection ended, or nothing came in time. */
  readonly status: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
  /** Statuses of informational answers before it. */
  readonly interim: readonly number[];
  readonly trailers: readonly (readonly [name: string, value: string])[];
}

export const NO_ANSWER: Answer = { status: 0, headers: [], body: "", interim: [], trailers: [] };

const ANSWER_MS = 4_000;

export interface ConverseOptions {
  /** Answers that are read; 1. */
  readonly count?: number;
  /** The answer has no body, whatever it announces. */
  readonly headless?: boolean;
  /** Said after a 101; as many bytes are read as the answer's body. */
  readonly talk?: string;
  /** Where it comes from: 127.0.0.1. */
  readonly from?: string;
}

/** Sends, reads `count` answers or to the end, closes. */
export async function converse(port: number, bytes: string, { count = 1, headless = false, talk, from }: ConverseOptions = {}): Promise<Answer[]> {
  const socket = connect({ port, host: "127.0.0.1", ...(from === undefined ? {} : { localAddress: from }) });
  const ended = Promise.withResolvers<void>();
  let received = "";
  let over = false;
  const answers: Answer[] = [];
  let interim: number[] = [];
  /** The answer that changed the protocol, while the other side has not said all of its part. */
  let changed: Answer | null = null;
  const take = (): void => {
    for (;;) {
      if (changed !== null) {
        if (received.length < talk!.length && !over) break;
        answers.push({ ...changed, body: received });
        changed = null;
      }
      const parsed = answers.length < count ? parse(received, headless, over) : null;
      if (parsed === null) break;
      received = parsed.rest;
      const { status } = parsed.answer;
      const answer = { ...parsed.answer, interim };
      if (status === 101 && talk !== undefined) {
        changed = answer;
        socket.write(Buffer.from(talk, "latin1"));
      } else if (status >= 200 || status === 101) answers.push(answer);
      interim = status >= 200 || status === 101 ? [] : [...interim, status];
    }
    if (answers.length >= count || over) ended.resolve();
  };
  const finish = (): void => {
    over = true;
    take();
  };
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
    take();
  }).on("end", finish).on("close", finish).on("error", () => {});
  const timer = setTimeout(ended.resolve, ANSWER_MS);
  socket.write(Buffer.from(bytes, "latin1"));
  await ended.promise;
  clearTimeout(timer);
  socket.destroy();
  while (answers.length < count) answers.push(NO_ANSWER);
  return answers;
}

function parse(text: string, headless: boolean, over: boolean): { readonly answer: Answer; readonly rest: string } | null {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return null;
  const [first, ...lines] = text.slice(0, end).split("\r\n");
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first!)?.[1] ?? 0);
  const headers = fieldsOf(lines);
  const value = (name: string): string | undefined => headers.find(([key]) => key === name)?.[1];
  const after = text.slice(end + 4);
  const done = (body: string, rest: string, trailers: Answer["trailers"] = []) => ({ answer: { status, headers, body, interim: [], trailers }, rest });
  if (headless || status < 200 || status === 204 || status === 304) return done("", after);
  if (value("transfer-encoding") === "chunked") {
    const chunks = unchunk(after);
    return chunks === null ? null : done(chunks.body, chunks.rest, chunks.trailers);
  }
  const length = value("content-length");
  if (length === undefined) return over ? done(after, "") : null;
  return after.length < Number(length) ? null : done(after.slice(0, Number(length)), after.slice(Number(length)));
}

const fieldsOf = (lines: readonly string[]): Answer["headers"] => lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()] as const);

function unchunk(text: string): { readonly body: string; readonly rest: string; readonly trailers: Answer["trailers"] } | null {
  let body = "";
  for (let at = 0; ; ) {
    const line = text.indexOf("\r\n", at);
    if (line < 0) return null;
    const size = Number.parseInt(text.slice(at, line), 16);
    if (size === 0) {
      const end = text.indexOf("\r\n\r\n", line - 2);
      if (text.startsWith("\r\n", line + 2)) return { body, rest: text.slice(line + 4), trailers: [] };
      return end < 0 ? null : { body, rest: text.slice(end + 4), trailers: fieldsOf(text.slice(line + 2, end).split("\r\n")) };
    }
    if (text.length < line + 2 + size + 2) return null;
    body += text.slice(line + 2, line + 2 + size);
    at = line + 2 + size + 2;
  }
}
