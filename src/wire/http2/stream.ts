// One stream: its place in the state machine and its windows. The connection is the only writer; everybody else reads.
//
//            request / HEADERS
//   (idle) ──────────────────▶ open ──our END_STREAM──▶ halfClosedLocal ──their END_STREAM──┐
//                               │                                                            ▼
//                               └──their END_STREAM──▶ halfClosedRemote ──our END_STREAM──▶ closed ◀── RST_STREAM from any state
//
// Idle streams are numbers, not objects; reserved states do not exist, as pushing is off.

import { LENGTH_UNKNOWN } from "./headers.ts";

export const StreamState = { open: 1, halfClosedLocal: 2, halfClosedRemote: 3, closed: 4 } as const;
export type StreamState = (typeof StreamState)[keyof typeof StreamState];

/** What a stream with unsent bytes waits for. */
export const Waiting = { nothing: 0, streamWindow: 1, connection: 2 } as const;
export type Waiting = (typeof Waiting)[keyof typeof Waiting];

export class Http2Stream {
  readonly id: number;
  /** The caller's own object; the engine never looks at it. */
  user: unknown = null;

  /** Read only for all but the connection, from here on. */
  state: StreamState;
  /** What we may send; negative after the peer lowered its initial window. */
  sendWindowBytes: number;
  /** What the peer may send. */
  receiveWindowBytes: number;
  /** Received, or announced by a frame under way, and not given back by `consumed`. */
  unconsumedBytes = 0;
  waiting: Waiting = Waiting.nothing;
  /** When `waiting` began; meaningless while nothing is awaited. */
  waitingSinceMs = 0;
  /** A CONNECT that was answered with 2xx: only DATA from here on. */
  isTunnel = false;
  /** Server: our final response went out. Client: the peer's came in. */
  hasFinalResponse = false;

  /** Private to the connection. */
  isConnect: boolean;
  isHead: boolean;
  contentLength = LENGTH_UNKNOWN;
  receivedBodyBytes = 0;
  informationalCount = 0;
  waitingPrevious: Http2Stream | null = null;
  waitingNext: Http2Stream | null = null;

  constructor(id: number, state: StreamState, sendWindowBytes: number, receiveWindowBytes: number, isConnect: boolean, isHead: boolean) {
    this.id = id;
    this.state = state;
    this.sendWindowBytes = sendWindowBytes;
    this.receiveWindowBytes = receiveWindowBytes;
    this.isConnect = isConnect;
    this.isHead = isHead;
  }

  /** Bytes handed to `onData` whose credit was not returned yet. */
  get bufferedUnconsumedBytes(): number {
    return this.unconsumedBytes;
  }

  get canSend(): boolean {
    return this.state === StreamState.open || this.state === StreamState.halfClosedRemote;
  }

  get canReceive(): boolean {
    return this.state === StreamState.open || this.state === StreamState.halfClosedLocal;
  }
}

/** First in, first out; a stream leaves in constant time when it is reset, so a peer cannot make the queue outlive its streams. */
export class WaitingQueue {
  size = 0;
  private head: Http2Stream | null = null;
  private tail: Http2Stream | null = null;

  push(stream: Http2Stream): void {
    stream.waitingPrevious = this.tail;
    stream.waitingNext = null;
    if (this.tail === null) this.head = stream;
    else this.tail.waitingNext = stream;
    this.tail = stream;
    this.size++;
  }

  shift(): Http2Stream | null {
    const stream = this.head;
    if (stream !== null) this.remove(stream);
    return stream;
  }

  remove(stream: Http2Stream): void {
    if (stream.waitingPrevious === null) this.head = stream.waitingNext;
    else stream.waitingPrevious.waitingNext = stream.waitingNext;
    if (stream.waitingNext === null) this.tail = stream.waitingPrevious;
    else stream.waitingNext.waitingPrevious = stream.waitingPrevious;
    stream.waitingPrevious = stream.waitingNext = null;
    this.size--;
  }
}
