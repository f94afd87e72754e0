// The common part of every RunningPeer: some server processes and some rules, with how to take both away.

import { must, Server, type ServerOptions } from "../lib/process.ts";
import type { Node, Testbed } from "../l4/testbed.ts";
import type { RunningPeer } from "./peer.ts";

/**
 * Collects what a peer starts. Disposed before `running()`, because one of its steps failed, it takes all of it away again.
 */
export class Setup implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #servers: Server[] = [];

  server(options: ServerOptions): Server {
    const server = this.#stack.adopt(new Server(options), (one) => one.stop());
    this.#servers.push(server);
    return server;
  }

  /** How to take away something else; done in the reverse order of the calls. */
  undo(step: () => void): void {
    this.#stack.defer(step);
  }

  running(): RunningPeer {
    const [servers, stack] = [this.#servers, this.#stack.move()];
    return {
      pids: servers.map((server) => server.pid),
      assertAlive: () => {
        for (const server of servers) if (!server.alive) throw new Error(`a proxy ended by itself: ${server.logTail()}`);
      },
      logTails: () => servers.map((server) => `${server.logFile}:\n${server.logTail()}`).join("\n"),
      stop: () => stack.disposeAsync(),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

/** Loads an nftables script in the node's namespace. */
export function loadRules(node: Node, rules: string): void {
  must([...node.enter, "nft", "-f", "-"], rules);
}

export function flushRules(node: Node): void {
  must([...node.enter, "nft", "flush", "ruleset"]);
}

/** Redirects the client's connections to the served ports to local ports: `[served, local]` each. */
export function redirectServedPorts(bed: Testbed, ports: ReadonlyMap<number, number>): void {
  const lines = [...ports].map(([served, local]) => `ip daddr ${bed.server.ip} tcp dport ${served} redirect to :${local}`);
  loadRules(bed.client, `table ip bench {\n chain output {\n type nat hook output priority -100;\n ${lines.join("\n")}\n }\n}\n`);
}
