// A way for bytes in both directions, whatever carries it: a plain socket, or a stream inside a tunnel. What HTTP is spoken over.

export interface ChannelUser {
  /** @param chunk borrowed for the call. */
  onBytes(chunk: Uint8Array): void;
  /** After a `write` that took less than it was given. */
  onWritable(): void;
  /** The peer sends no more. We may. */
  onPeerEnd(): void;
  /** Gone, both ways. Once, the last event; also after our own `close`, never after `destroy`. @param error what went wrong; null for a usual end. */
  onChannelClosed(error: string | null): void;
}

export interface Channel {
  /** Bytes taken: fewer than given when it is full, negative when it is gone. Copies or sends at once. */
  write(bytes: Uint8Array): number;
  /** No more `onBytes`, but for what was read already. */
  pause(): void;
  resume(): void;
  /** We send no more; the peer may. */
  end(): void;
  /** In order, what was written first. */
  close(): void;
  /** At once, and so that the peer cannot take it for a usual end. No further event. */
  destroy(): void;
}

/** As it is handed over: whoever gets it sets its user. */
export type ChannelWithUser = Channel & { user: ChannelUser | null };
