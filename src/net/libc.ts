// The few libc calls that Bun has no API for, over bun:ffi. Every wrapper returns a plain number, or -errno on failure,
// so that no caller has to remember when errno is still valid. Linux only (glibc or musl), 64-bit little-endian.

import { dlopen, FFIType, ptr, read, type Pointer } from "bun:ffi";

const library = openLibc();
const C = library.symbols;

function openLibc() {
  const symbols = {
    __errno_location: { args: [], returns: "ptr" },
    setns: { args: ["i32", "i32"], returns: "i32" },
    unshare: { args: ["i32"], returns: "i32" },
    mount: { args: ["ptr", "ptr", "ptr", FFIType.u64_fast, "ptr"], returns: "i32" },
    umount2: { args: ["ptr", "i32"], returns: "i32" },
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
    connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
    listen: { args: ["i32", "i32"], returns: "i32" },
    accept4: { args: ["i32", "ptr", "ptr", "i32"], returns: "i32" },
    getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    getpeername: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
    getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
    send: { args: ["i32", "ptr", FFIType.u64_fast, "i32"], returns: FFIType.i64_fast },
    recv: { args: ["i32", "ptr", FFIType.u64_fast, "i32"], returns: FFIType.i64_fast },
    sendmsg: { args: ["i32", "ptr", "i32"], returns: FFIType.i64_fast },
    recvmsg: { args: ["i32", "ptr", "i32"], returns: FFIType.i64_fast },
    poll: { args: ["ptr", FFIType.u64_fast, "i32"], returns: "i32" },
    open: { args: ["ptr", "i32", "i32"], returns: "i32" },
    read: { args: ["i32", "ptr", FFIType.u64_fast], returns: FFIType.i64_fast },
    write: { args: ["i32", "ptr", FFIType.u64_fast], returns: FFIType.i64_fast },
    close: { args: ["i32"], returns: "i32" },
    fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
    mprotect: { args: [FFIType.u64_fast, FFIType.u64_fast, "i32"], returns: "i32" },
    madvise: { args: [FFIType.u64_fast, FFIType.u64_fast, "i32"], returns: "i32" },
    flock: { args: ["i32", "i32"], returns: "i32" },
    pipe2: { args: ["ptr", "i32"], returns: "i32" },
    splice: { args: ["i32", "ptr", "i32", "ptr", FFIType.u64_fast, "u32"], returns: FFIType.i64_fast },
    ioctl: { args: ["i32", FFIType.u64_fast, "ptr"], returns: "i32" },
    syscall: { args: [FFIType.i64_fast, FFIType.i64_fast], returns: FFIType.i64_fast },
    sendto: { args: ["i32", "ptr", FFIType.u64_fast, "i32", "ptr", "u32"], returns: FFIType.i64_fast },
  } as const;
  return dlopen("libc.so.6", symbols);
}

export const CLONE_NEWNET = 0x40000000;

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;

export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_KEEPALIVE = 9;
export const SO_REUSEPORT = 15;
export const SO_RCVTIMEO = 20;
export const SO_ATTACH_FILTER = 26;
export const SO_ACCEPTCONN = 30;
export const SO_RCVBUFFORCE = 33;
export const SO_MARK = 36;
export const SO_ATTACH_REUSEPORT_CBPF = 51;
export const SO_DETACH_REUSEPORT_BPF = 68;
export const IPPROTO_TCP = 6;
export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const SOL_IP = 0;
export const IP_TRANSPARENT = 19;
export const IP_BIND_ADDRESS_NO_PORT = 24;
export const SO_ORIGINAL_DST = 80;
export const SOL_IPV6 = 41;
export const IPV6_V6ONLY = 26;
export const IPV6_TRANSPARENT = 75;

export const F_SETFD = 2;
export const F_DUPFD_CLOEXEC = 1030;
export const F_SETPIPE_SZ = 1031;
export const FD_CLOEXEC = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_NONBLOCK = 0x800;
export const O_ASYNC = 0x2000;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_SETOWN = 8;
export const O_CLOEXEC = 0x80000;

export const SPLICE_F_MOVE = 1;
export const SPLICE_F_NONBLOCK = 2;

export const MS_BIND = 4096;
export const MNT_DETACH = 2;

export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_CMSG_CLOEXEC = 0x40000000;
export const MSG_NOSIGNAL = 0x4000;

export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENFILE = 23;
export const EMFILE = 24;
export const ERESTART = 85;
export const EOPNOTSUPP = 95;
export const EAFNOSUPPORT = 97;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENOBUFS = 105;
export const ECONNREFUSED = 111;
export const EINPROGRESS = 115;

const errnoNames = new Map<number, string>([
  [1, "EPERM"], [2, "ENOENT"], [3, "ESRCH"], [4, "EINTR"], [5, "EIO"], [6, "ENXIO"], [9, "EBADF"], [11, "EAGAIN"],
  [12, "ENOMEM"], [13, "EACCES"], [16, "EBUSY"], [17, "EEXIST"], [19, "ENODEV"], [20, "ENOTDIR"], [22, "EINVAL"],
  [23, "ENFILE"], [24, "EMFILE"], [28, "ENOSPC"], [32, "EPIPE"], [34, "ERANGE"], [75, "EOVERFLOW"], [85, "ERESTART"], [71, "EPROTO"], [88, "ENOTSOCK"],
  [92, "ENOPROTOOPT"], [93, "EPROTONOSUPPORT"], [95, "EOPNOTSUPP"], [97, "EAFNOSUPPORT"], [98, "EADDRINUSE"],
  [99, "EADDRNOTAVAIL"], [100, "ENETDOWN"], [101, "ENETUNREACH"], [103, "ECONNABORTED"], [104, "ECONNRESET"],
  [105, "ENOBUFS"], [106, "EISCONN"], [107, "ENOTCONN"], [110, "ETIMEDOUT"], [111, "ECONNREFUSED"], [113, "EHOSTUNREACH"],
  [114, "EALREADY"], [115, "EINPROGRESS"],
]);

/** `ECONNREFUSED` for 111; accepts the negative form that the wrappers return. */
export function errnoName(errno: number): string {
  const code = Math.abs(errno);
  return errnoNames.get(code) ?? `errno ${code}`;
}

function lastErrno(): number {
  return read.i32(C.__errno_location() as Pointer, 0);
}

function checked(result: number): number {
  return result < 0 ? -lastErrno() : result;
}

/** A NUL-terminated copy; keep it referenced until the call returns. */
function cString(text: string): Uint8Array {
  if (text.includes("\0")) throw new Error("a C string may not contain NUL");
  return new TextEncoder().encode(`${text}\0`);
}

const intValue = new Int32Array(1);
const intLength = new Uint32Array(1);

export const setns = (fd: number, nsType: number): number => checked(C.setns(fd, nsType));
export const unshare = (flags: number): number => checked(C.unshare(flags));
export const socket = (family: number, type: number, protocol: number): number => checked(C.socket(family, type, protocol));
export const bind = (fd: number, address: Uint8Array): number => checked(C.bind(fd, ptr(address), address.length));
export const connect = (fd: number, address: Uint8Array): number => checked(C.connect(fd, ptr(address), address.length));
export const listen = (fd: number, backlog: number): number => checked(C.listen(fd, backlog));
/** Accepts without waiting on a non-blocking listener; the new descriptor is non-blocking and close-on-exec. */
export const accept = (fd: number): number => checked(C.accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC));
export const close = (fd: number): number => checked(C.close(fd));
export const flock = (fd: number, operation: number): number => checked(C.flock(fd, operation));
export const fcntl = (fd: number, command: number, argument: number): number => checked(C.fcntl(fd, command, argument));

export function open(path: string, flags: number, mode = 0): number {
  const text = cString(path);
  return checked(C.open(ptr(text), flags, mode));
}

/** Reads at most `into.length` bytes; returns their number, or -errno. */
export const readFd = (fd: number, into: Uint8Array): number => checked(Number(C.read(fd, ptr(into), into.length)));
export const writeFd = (fd: number, bytes: Uint8Array): number => checked(Number(C.write(fd, ptr(bytes), bytes.length)));

export function mount(source: string, target: string, fsType: string, flags: number): number {
  const [a, b, c] = [cString(source), cString(target), cString(fsType)];
  return checked(C.mount(ptr(a), ptr(b), ptr(c), flags, null));
}

export function umount(target: string, flags: number): number {
  const text = cString(target);
  return checked(C.umount2(ptr(text), flags));
}

export const send = (fd: number, bytes: Uint8Array, flags: number): number => checked(Number(C.send(fd, ptr(bytes), bytes.length, flags)));
export const sendTo = (fd: number, bytes: Uint8Array, flags: number, to: Uint8Array): number =>
  checked(Number(C.sendto(fd, ptr(bytes), bytes.length, flags, ptr(to), to.length)));
export const recv = (fd: number, into: Uint8Array, flags: number): number => checked(Number(C.recv(fd, ptr(into), into.length, flags)));
/** @param header a struct msghdr of 56 bytes whose pointers the caller keeps alive. */
export const sendmsg = (fd: number, header: Uint8Array, flags: number): number => checked(Number(C.sendmsg(fd, ptr(header), flags)));
export const recvmsg = (fd: number, header: Uint8Array, flags: number): number => checked(Number(C.recvmsg(fd, ptr(header), flags)));

export function setIntOption(fd: number, level: number, option: number, value: number): number {
  intValue[0] = value;
  return checked(C.setsockopt(fd, level, option, ptr(intValue), 4));
}

/** The value (>= 0), or -errno. Only for options whose values are not negative. */
export function getIntOption(fd: number, level: number, option: number): number {
  intLength[0] = 4;
  const result = checked(C.getsockopt(fd, level, option, ptr(intValue), ptr(intLength)));
  return result < 0 ? result : intValue[0]!;
}

export const setOption = (fd: number, level: number, option: number, value: Uint8Array): number =>
  checked(C.setsockopt(fd, level, option, ptr(value), value.length));

/** Fills `into`; returns the length written, or -errno. */
export function getOption(fd: number, level: number, option: number, into: Uint8Array): number {
  intLength[0] = into.length;
  const result = checked(C.getsockopt(fd, level, option, ptr(into), ptr(intLength)));
  return result < 0 ? result : intLength[0]!;
}

/** Fills `into` with a sockaddr; returns its length, or -errno. */
export function getsockname(fd: number, into: Uint8Array): number {
  intLength[0] = into.length;
  const result = checked(C.getsockname(fd, ptr(into), ptr(intLength)));
  return result < 0 ? result : intLength[0]!;
}

/** Fills `into` with the peer's sockaddr; returns its length, or -errno. */
export function getpeername(fd: number, into: Uint8Array): number {
  intLength[0] = into.length;
  const result = checked(C.getpeername(fd, ptr(into), ptr(intLength)));
  return result < 0 ? result : intLength[0]!;
}

/** Waits for one descriptor. Returns the ready events (0 after `timeoutMs`), or -errno. */
export function pollOne(fd: number, events: number, timeoutMs: number): number {
  const entry = new Int32Array([fd, events]);
  const result = checked(C.poll(ptr(entry), 1, timeoutMs));
  return result <= 0 ? result : entry[1]! >>> 16;
}

const PROT_READ = 1;

/** Whole pages. A write to them from now on ends the process. */
export const protectReadOnly = (start: number, bytes: number): number => checked(C.mprotect(start, bytes, PROT_READ));

const MADV_DONTNEED = 4;

/** Drops the pages of a range from this process. What was not written to a file is lost: for clean mappings of files only. */
export const adviseUnneeded = (start: number, bytes: number): number => checked(C.madvise(start, bytes, MADV_DONTNEED));

/** What is written into `into` is read from `outOf`; or -errno. */
export function pipe(flags: number): { readonly outOf: number; readonly into: number } | number {
  const ends = new Int32Array(2);
  const result = checked(C.pipe2(ptr(ends), flags));
  return result < 0 ? result : { outOf: ends[0]!, into: ends[1]! };
}

/** One of the two is a pipe. Returns the bytes moved, 0 at the end of `from`, or -errno. */
export const splice = (from: number, to: number, bytes: number, flags: number): number => checked(Number(C.splice(from, null, to, null, bytes, flags)));

/** @param argument a struct that the kernel reads and fills. */
export const ioctl = (fd: number, request: number, argument: BigUint64Array): number => checked(C.ioctl(fd, request, ptr(argument)));

/** glibc has no function for it. */
const SYS_USERFAULTFD = process.arch === "arm64" ? 282 : 323;

export const userfaultfd = (flags: number): number => checked(Number(C.syscall(SYS_USERFAULTFD, flags)));
