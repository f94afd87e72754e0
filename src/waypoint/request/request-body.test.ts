import { describe, expect, test } from "bun:test";
import { RequestBody } from "./request-body.ts";
import type { BodySink, BodySource } from "../channel/streams.ts";

class Source implements BodySource {
  paused = false;
  credit = 0;
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  consumed(bytes: number): void {
    this.credit += bytes;
  }
}

class Sink implements BodySink {
  text = "";
  ended = false;
  send(bytes: Uint8Array): number {
    this.text += Buffer.from(bytes).toString();
    return bytes.length;
  }
  end(): void {
    this.ended = true;
  }
}

const bytes = (text: string): Uint8Array => Buffer.from(text);

describe("a body that is gathered before it goes on", () => {
  test("is read to its end when that is within the limit, and then sent whole", () => {
    const source = new Source();
    const body = new RequestBody(source, null);
    body.receive(bytes("ab"));
    expect(source.paused).toBe(true);
    let told = 0;
    body.gather(5, () => told++);
    expect([source.paused, source.credit, told]).toEqual([false, 2, 0]);
    body.receive(bytes("cde"));
    expect([source.paused, source.credit, told]).toEqual([false, 5, 0]);
    body.receiveEnd([]);
    expect(told).toBe(1);
    expect(body.peek(5)).toEqual({ bytes: new Uint8Array(bytes("abcde")), isWhole: true });
    const sink = new Sink();
    body.attach(sink);
    expect([sink.text, sink.ended, source.credit]).toEqual(["abcde", true, 5]);
  });

  test("is held back once it is longer, without a window that never opens again", () => {
    const source = new Source();
    const body = new RequestBody(source, null);
    let told = 0;
    body.gather(3, () => told++);
    body.receive(bytes("abc"));
    expect([source.paused, told]).toEqual([false, 0]);
    body.receive(bytes("defg"));
    expect([source.paused, source.credit, told]).toEqual([true, 3, 1]);
    expect(body.peek(3)).toEqual({ bytes: new Uint8Array(bytes("abc")), isWhole: false });
    const sink = new Sink();
    body.attach(sink);
    expect([sink.text, source.paused, source.credit]).toEqual(["abcdefg", false, 7]);
    body.receive(bytes("h"));
    body.receiveEnd([]);
    expect([sink.text, sink.ended, source.credit]).toEqual(["abcdefgh", true, 8]);
  });

  test("goes on in the same call when whoever waited sends at once", () => {
    const source = new Source();
    const body = new RequestBody(source, null);
    const sink = new Sink();
    body.gather(1, () => body.attach(sink));
    body.receive(bytes("abc"));
    expect([sink.text, source.paused, source.credit]).toEqual(["abc", false, 3]);
  });
});
