// Listening sockets that the service manager keeps while this service is restarted, so that connections wait in their queues and are
// not refused: see FileDescriptorStoreMax in systemd.service(5). Without a service manager nothing happens.

import type { NamedSocket } from "./inherited-sockets.ts";
import type { ServiceManager } from "./service-manager.ts";

export class KeptSockets {
  readonly #manager: ServiceManager;
  readonly #names = new Set<string>();

  constructor(manager: ServiceManager) {
    this.#manager = manager;
  }

  keep(sockets: readonly NamedSocket[]): void {
    const byName = new Map<string, number[]>();
    for (const { name, fd } of sockets) byName.set(name, [...(byName.get(name) ?? []), fd]);
    for (const [name, fds] of byName) {
      this.#names.add(name);
      this.#manager.storeDescriptors(name, fds);
    }
  }

  /** Before they are closed here: a socket that only the manager holds accepts connections that nobody answers. */
  letGo(names: readonly string[]): void {
    for (const name of new Set(names)) {
      this.#names.delete(name);
      this.#manager.removeDescriptors(name);
    }
  }
}
