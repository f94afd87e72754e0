// Plain TCP sockets of the data path: one shared set of callbacks that hands every event to the object in `socket.data`.

import type { Socket, SocketHandler } from "bun";
import { accept as acceptOne, close } from "../net/libc.ts";
import { LISTEN_BACKLOG } from "../net/listen.ts";

/** Who owns one plain socket's events. Callbacks may not throw. */
export interface PlainEnd {
  onOpen(socket: PlainSocket): void;
  /** Writable again; the first one on a dialled socket means that it is connected. */
  onDrain(): void;
  /** @param chunk ours to keep: the runtime hands out a fresh copy. */
  onData(chunk: Uint8Array): void;
  /** The peer's FIN; our half stays open. */
  onEnd(): void;
  /** The socket is gone; `error` for a failed connect or a reset. Exactly once, the last event. */
  onClose(error: SocketError | null): void;
}

export type PlainSocket = Socket<PlainEnd>;

/** Its descriptor, which the runtime's types leave out. */
export const descriptorOf = (socket: PlainSocket): number => (socket as unknown as { readonly fd: number }).fd;

export type SocketError = Error & { readonly code?: string };

const dispatch: SocketHandler<PlainEnd> = {
  open: (socket) => socket.data.onOpen(socket),
  drain: (socket) => socket.data.onDrain(),
  data: (socket, chunk) => socket.data.onData(chunk),
  end: (socket) => socket.data.onEnd(),
  close: (socket, error) => socket.data.onClose((error as SocketError | undefined) ?? null),
  error: () => {}, // `close` follows and carries the same error
};

/** Adopts a connected or connecting descriptor; from here on the socket owns it. */
export function adoptSocket(fd: number, end: PlainEnd): void {
  // The promise settles with what the callbacks already told; a rejection is the same failure as onClose.
  Bun.connect({ fd, data: end, allowHalfOpen: true, socket: dispatch } as unknown as Parameters<typeof Bun.connect<PlainEnd>>[0]).catch(() => {});
}

export interface Listener {
  /** Stops accepting; accepted sockets live on, and so do those that the kernel had accepted for us. */
  stop(): void;
}

/** Adopts a listening descriptor. `accept` names the owner of each new socket, called before its `onOpen`. */
export function adoptListener(fd: number, accept: () => PlainEnd): Listener {
  const listener = Bun.listen<PlainEnd>({
    fd,
    allowHalfOpen: true,
    data: undefined as unknown as PlainEnd,
    socket: {
      ...dispatch,
      open(socket: PlainSocket) {
        socket.data = accept();
        socket.data.onOpen(socket);
      },
    },
  } as unknown as Parameters<typeof Bun.listen<PlainEnd>>[0]);
  return {
    stop() {
      const queued = takeQueued(fd);
      listener.stop(false); // at once: what comes in between is reset
      for (const taken of queued) adoptSocket(taken, accept());
    },
  };
}

/**
 * Connections that the kernel has made for a listening descriptor and nobody has accepted: closing the listener would reset them.
 * @returns descriptors the caller owns, at most a backlog of them.
 */
export function takeQueued(listenerFd: number): number[] {
  const taken: number[] = [];
  while (taken.length <= LISTEN_BACKLOG) {
    const fd = acceptOne(listenerFd);
    if (fd < 0) break;
    taken.push(fd);
  }
  return taken;
}

export const closeFd = (fd: number): void => void close(fd);
