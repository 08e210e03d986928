import {
  appendFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** Changes a directory tree on disk at random, as people and programs do. */
export class DiskChanges {
  readonly #names = ['a', 'b', 'c', 'A', 'B', 'img1', 'img2', 'img3', 'x y', 'ö', '~7', 'd', 'no\u0001name'];

  constructor(
    readonly root: string,
    readonly random: () => number,
    readonly hasLinks = true,
  ) {}

  /** Makes one change. @returns its name. */
  change(): string {
    const entries = Object.entries(this.#changes);
    for (;;) {
      const [name, work] = this.#pick(entries);
      if (work()) return name;
    }
  }

  /** Creates files and directories, so that changes meet each other in a tree of some size. */
  grow(objects: number): void {
    for (let made = 0; made < objects; made += 1) {
      if (made % 3 === 0) this.#on(this.#newPath(), (path) => mkdirSync(path));
      else this.#create(this.#newPath());
    }
  }

  readonly #changes: Readonly<Record<string, () => boolean>> = {
    createFile: () => this.#create(this.#newPath()),
    createFiles: () => this.#create(this.#newPath()) && this.#create(this.#newPath()),
    createDirectory: () => this.#on(this.#newPath(), (path) => mkdirSync(path)),
    write: () => this.#on(this.#file(), (path) => appendFileSync(path, 'more')),
    // Of the same size, and in a bucket often without another moment.
    overwrite: () =>
      this.#on(this.#file(), (path) =>
        writeFileSync(
          path,
          `${this.random()}`.padEnd(lstatSync(path).size, 'o').slice(0, lstatSync(path).size),
        ),
      ),
    saveByRenaming: () =>
      this.#on(this.#file(), (path) => {
        writeFileSync(join(this.root, '..', 'saved'), 's'.repeat(this.#number(9)));
        renameSync(join(this.root, '..', 'saved'), path);
      }),
    saveWithBackup: () =>
      this.#on(this.#file(), (path) => {
        if (!this.#move(path, `${path}~`)) return;
        writeFileSync(path, 'new content');
      }),
    removeFile: () => this.#on(this.#file(), (path) => unlinkSync(path)),
    removeDirectory: () =>
      this.#number(4) === 0 && this.#on(this.#directory(), (path) => rmSync(path, { recursive: true })),
    recreateDirectory: () =>
      this.#number(4) === 0 &&
      this.#on(this.#directory(), (path) => {
        rmSync(path, { recursive: true });
        mkdirSync(path);
      }),
    moveFile: () => this.#move(this.#file(), this.#newPath()),
    moveFileAndWrite: () => {
      const target = this.#newPath();
      return this.#move(this.#file(), target) && this.#on(target, (path) => appendFileSync(path, 'm'));
    },
    moveFileOver: () => this.#move(this.#file(), this.#file()),
    moveDirectory: () => this.#move(this.#directory(), this.#newPath()),
    moveDirectoryAndFiles: () => {
      const target = this.#newPath();
      if (!this.#move(this.#directory(), target) || target === undefined) return false;
      for (const name of readdirSync(target)) {
        if (!existsSync(join(target, `${name}2`))) renameSync(join(target, name), join(target, `${name}2`));
      }
      return true;
    },
    swapFiles: () => this.#swap(this.#file(), this.#file()),
    swapDirectories: () => this.#swap(this.#directory(), this.#directory()),
    swapAny: () => this.#swap(this.#file(), this.#directory()),
    shiftNames: () =>
      this.#on(this.#directory(), (path) => {
        const names = readdirSync(path).sort();
        const last = names.at(-1);
        if (last === undefined || existsSync(join(path, `${last}'`))) return;
        renameSync(join(path, last), join(path, `${last}'`));
        for (let index = names.length - 2; index >= 0; index -= 1) {
          renameSync(join(path, names[index] ?? ''), join(path, names[index + 1] ?? ''));
        }
      }),
    rotateNames: () =>
      this.#on(this.#directory(), (path) => {
        const names = readdirSync(path).sort();
        for (const name of names) renameSync(join(path, name), join(path, `${name}.r`));
        names.forEach((name, index) => {
          renameSync(join(path, `${name}.r`), join(path, names[(index + 1) % names.length] ?? ''));
        });
      }),
    fileBecomesDirectory: () =>
      this.#on(this.#file(), (path) => {
        unlinkSync(path);
        mkdirSync(path);
        writeFileSync(join(path, 'inside'), 'i');
      }),
    directoryBecomesFile: () =>
      this.#number(3) === 0 &&
      this.#on(this.#directory(), (path) => {
        rmSync(path, { recursive: true });
        writeFileSync(path, 'was a directory');
      }),
    directoryBecomesItsFile: () =>
      this.#on(this.#directory(), (path) => {
        const file = readdirSync(path).find((name) => lstatSync(join(path, name)).isFile());
        if (file === undefined) return;
        renameSync(join(path, file), join(this.root, '..', 'out'));
        rmSync(path, { recursive: true });
        renameSync(join(this.root, '..', 'out'), path);
      }),
    goUp: () => {
      // d/e becomes e, and d moves into it.
      const inner = this.#directory();
      if (inner === undefined || dirname(inner) === this.root) return false;
      const outer = dirname(inner);
      const place = dirname(outer);
      if (existsSync(join(place, 'up')) || existsSync(join(inner, 'down'))) return false;
      renameSync(inner, join(place, 'up'));
      renameSync(outer, join(place, 'up', 'down'));
      return true;
    },
    changeCase: () => {
      const path = this.#number(2) === 0 ? this.#file() : this.#directory();
      if (path === undefined) return false;
      const name = basename(path);
      const other = name === name.toUpperCase() ? name.toLowerCase() : name.toUpperCase();
      return this.#move(path, join(dirname(path), other));
    },
    link: () => {
      const target = this.#newPath();
      return (
        this.hasLinks && target !== undefined && this.#on(this.#file(), (path) => linkSync(path, target))
      );
    },
  };

  #number(below: number): number {
    return Math.floor(this.random() * below);
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#number(values.length)] as T;
  }

  #all(kind: 'file' | 'directory', directory = this.root): readonly string[] {
    // In one order on every disk, so that a seed repeats its changes.
    const items = readdirSync(directory, { withFileTypes: true });
    return items
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap((item) => {
        const path = join(directory, item.name);
        const own = item.isDirectory() === (kind === 'directory') ? [path] : [];
        return item.isDirectory() ? [...own, ...this.#all(kind, path)] : own;
      });
  }

  #file(): string | undefined {
    const all = this.#all('file');
    return all[this.#number(all.length)];
  }

  #directory(): string | undefined {
    const all = this.#all('directory');
    return all[this.#number(all.length)];
  }

  #newPath(): string | undefined {
    const path = join(this.#pick([this.root, ...this.#all('directory')]), this.#pick(this.#names));
    return existsSync(path) || path.length > 250 ? undefined : path;
  }

  #on(path: string | undefined, work: (path: string) => void): boolean {
    if (path === undefined) return false;
    work(path);
    return true;
  }

  #create(path: string | undefined): boolean {
    return this.#on(path, (own) => writeFileSync(own, this.#content()));
  }

  /** Often the content of other files, or empty. */
  #content(): string {
    return this.#number(2) === 0 ? 'c'.repeat(this.#number(9)) : `${this.random()}`;
  }

  #move(from: string | undefined, to: string | undefined): boolean {
    if (from === undefined || to === undefined || from === to || `${to}/`.startsWith(`${from}/`))
      return false;
    if (!existsSync(from) || !existsSync(dirname(to))) return false;
    if (existsSync(to) && (lstatSync(to).isDirectory() || lstatSync(from).isDirectory())) return false;
    renameSync(from, to);
    return true;
  }

  #swap(a: string | undefined, b: string | undefined): boolean {
    if (a === undefined || b === undefined || `${a}/`.startsWith(`${b}/`) || `${b}/`.startsWith(`${a}/`)) {
      return false;
    }
    renameSync(a, join(this.root, '..', 'swap'));
    renameSync(b, a);
    renameSync(join(this.root, '..', 'swap'), b);
    return true;
  }
}
