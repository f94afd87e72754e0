import { expect, test } from "bun:test";
import { describeUnless } from "./skip.ts";
import { unsealed } from "./box.ts";
import { MeshNetwork } from "./network.ts";

function echoServer(place: { inside<R>(body: () => R): R }, hostname: string, port: number) {
  return place.inside(() => Bun.listen({ hostname, port, socket: { data: (socket, bytes) => void socket.write(bytes) } }));
}

async function echoed(place: { inside<R>(body: () => R): R }, hostname: string, port: number, text: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let got = "";
  void place.inside(() => Bun.connect({
    hostname,
    port,
    socket: {
      open: (socket) => void socket.write(text),
      data: (socket, bytes) => {
        got += bytes.toString();
        if (got.length < text.length) return;
        resolve(got);
        socket.end();
      },
      close: () => reject(new Error(`closed after ${got.length} characters`)),
      connectError: (_, error) => reject(error),
    },
  })).catch(reject);
  return await promise;
}

describeUnless(unsealed)("network kit", () => {
  test("workloads on two nodes reach each other, IPv4 and IPv6, and a witness sees the plain text", async () => {
    await using network = MeshNetwork.create();
    const [east, west] = [network.node("east"), network.node("west")];
    const [web, client] = [east.workload("web"), west.workload("client")];
    const server4 = echoServer(web, "0.0.0.0", 8080);
    const server6 = echoServer(web, "2001:db8:1::a", 8081);
    using wire = network.witness(east, west);
    expect(await echoed(client, web.ipv4, 8080, "over IPv4")).toBe("over IPv4");
    expect(await echoed(client, web.ipv6!, 8081, "over IPv6")).toBe("over IPv6");
    expect(wire.saw("over IPv4")).toBe(true);
    expect(wire.saw("over IPv6")).toBe(true);
    expect(wire.saw("something else")).toBe(false);
    expect(wire.bytesOnPort(8080)).toBe(2 * "over IPv4".length);
    server4.stop(true);
    server6.stop(true);
  });

  test("two workloads of one node, and a node itself, reach each other", async () => {
    await using network = MeshNetwork.create();
    const east = network.node("east");
    const [web, client] = [east.workload("web"), east.workload("client")];
    const server = echoServer(web, "0.0.0.0", 8080);
    expect(await echoed(client, web.ipv4, 8080, "neighbour")).toBe("neighbour");
    expect(await echoed(east, web.ipv4, 8080, "node")).toBe("node");
    server.stop(true);
  });

  test("a third node is joined to both others, with given addresses", async () => {
    await using network = MeshNetwork.create({ mtu: 1280 });
    const [east, west] = [network.node("east"), network.node("west")];
    const web = east.workload("web", { ipv4: "198.18.77.5", ipv6: false });
    const south = network.node("south");
    const client = south.workload("client");
    const server = echoServer(web, "0.0.0.0", 8080);
    expect(await echoed(client, web.ipv4, 8080, "x".repeat(20_000))).toHaveLength(20_000);
    expect(await echoed(west, web.ipv4, 8080, "from the node")).toBe("from the node");
    expect(web.ipv6).toBeNull();
    expect(web.sysctl("net.ipv6.conf.all.disable_ipv6")).toBe("1");
    server.stop(true);
  });

  test("programs run inside, are awaited by their port, and end with the network", async () => {
    const network = MeshNetwork.create();
    const web = network.node("east").workload("web");
    const server = web.exec([process.execPath, "-e", `Bun.listen({ hostname: "0.0.0.0", port: 9000, socket: { data() {} } })`]);
    await web.listening(9000);
    const said = await web.run(["sh", "-c", "echo $WHO; exit 3"], { env: { WHO: "me" } });
    expect(said).toEqual({ exitCode: 3, stdout: "me\n", stderr: "" });
    await network[Symbol.asyncDispose]();
    expect(server.signalCode).toBe("SIGKILL");
    expect(await Bun.file("/run/netns/web").exists()).toBe(false);
  });
});
