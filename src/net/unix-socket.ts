// Unix sockets made by hand, where descriptors or a listener of our own making are needed.

import { AF_UNIX, bind, close, connect, errnoName, listen, SOCK_CLOEXEC, SOCK_NONBLOCK, socket } from "./libc.ts";

/** sun_path with its NUL. */
const PATH_BYTES_MAX = 108;

/** A sockaddr_un; `@name` is in the abstract namespace. Null when the path is too long. */
export function unixAddress(path: string): Uint8Array | null {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length >= PATH_BYTES_MAX || bytes.includes(0)) return null;
  const address = new Uint8Array(2 + bytes.length + (path.startsWith("@") ? 0 : 1));
  address[0] = AF_UNIX;
  address.set(bytes, 2);
  if (path.startsWith("@")) address[2] = 0;
  return address;
}

/** A connected, non-blocking socket of `type`, or the error. */
export function connectUnix(path: string, type: number): { readonly fd: number } | { readonly error: string; readonly errno: number } {
  return make(path, type, (fd, address) => connect(fd, address));
}

/** A listening, non-blocking socket of `type` at `path`, which must not exist. */
export function listenUnix(path: string, type: number, backlog: number): { readonly fd: number } | { readonly error: string; readonly errno: number } {
  return make(path, type, (fd, address) => {
    const bound = bind(fd, address);
    return bound < 0 ? bound : listen(fd, backlog);
  });
}

/** A bound, non-blocking socket of `type` that listens to nobody. */
export function bindUnix(path: string, type: number): { readonly fd: number } | { readonly error: string; readonly errno: number } {
  return make(path, type, (fd, address) => bind(fd, address));
}

function make(path: string, type: number, use: (fd: number, address: Uint8Array) => number) {
  const address = unixAddress(path);
  if (address === null) return { error: `the path is empty or longer than ${PATH_BYTES_MAX - 1} bytes: ${path}`, errno: 0 };
  const fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return { error: errnoName(fd), errno: -fd };
  const result = use(fd, address);
  if (result >= 0) return { fd };
  close(fd);
  return { error: `${path}: ${errnoName(result)}`, errno: -result };
}
