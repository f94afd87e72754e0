// Holds connections: answers each chunk with one byte, so that the other end knows that it was really reached.
// Usage: bun idle-server.ts PORT

const ANSWER = new Uint8Array([1]);

Bun.listen({
  hostname: "0.0.0.0",
  port: Number(process.argv[2]),
  socket: {
    data(socket) {
      socket.write(ANSWER);
    },
  },
});
