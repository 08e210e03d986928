interface Source {
  readonly title: string;
  readonly url: string;
}

/** Figures that others published, measured on their machines: an order of magnitude, and nothing to subtract from. */
export interface PublishedFigure {
  readonly system: string;
  readonly what: string;
  readonly figure: string;
  /** Key of the operation here that is nearest. */
  readonly nearest: string;
  readonly source: Source;
}

const MDTEST: Source = {
  title: 'mdtest, empty files',
  url: 'https://github.com/juicedata/juicefs/blob/8227f24a58ff88ec950c5877a05804f8588be1db/docs/en/benchmark/metadata_engines_benchmark.md#mdtest',
};
const CLONE: Source = { title: 'issue 6546', url: 'https://github.com/juicedata/juicefs/issues/6546' };
const LAZY_PARENTS: Source = {
  title: 'commit f3286f9',
  url: 'https://github.com/dcache/dcache/commit/f3286f9d05c82dbadfe635921955b750dc923551',
};
const UNCOUNTED_TAGS: Source = {
  title: 'commit ff86d14',
  url: 'https://github.com/dcache/dcache/commit/ff86d145513999b4c689d41b01d7f687c04b58c1',
};

const creates = (engine: string, figure: string): PublishedFigure => ({
  system: `JuiceFS on ${engine}`,
  what: 'creates of files, 12 processes',
  figure,
  nearest: 'create12spread',
  source: MDTEST,
});

export const PUBLISHED: readonly PublishedFigure[] = [
  creates('PostgreSQL 15.3', '4,727/s'),
  {
    system: 'JuiceFS on PostgreSQL 15.3',
    what: 'creates of directories, 12 processes',
    figure: '4,092/s',
    nearest: 'createDirectory12',
    source: MDTEST,
  },
  {
    system: 'JuiceFS on PostgreSQL 15.3',
    what: 'removals of files, 12 processes',
    figure: '3,962/s',
    nearest: 'deleteFile12',
    source: MDTEST,
  },
  creates('MySQL 8.0.25', '1,327/s'),
  creates('TiKV 6.5.3, three replicas', '4,054/s'),
  creates('Redis 7.0.9, fsync at every write (`appendfsync always`)', '5,473/s'),
  creates('Redis 7.0.9, fsync every second (`appendfsync everysec`)', '9,985/s'),
  {
    system: 'JuiceFS on PostgreSQL',
    what: 'clone of a tree, before it was batched',
    figure: '218 entries/s',
    nearest: 'copy',
    source: CLONE,
  },
  {
    system: 'dCache Chimera',
    what: 'creates in one directory, 64 threads, strong consistency of the directory',
    figure: '244/s',
    nearest: 'create32oneDirectory',
    source: LAZY_PARENTS,
  },
  {
    system: 'dCache Chimera',
    what: 'creates in one directory, 64 threads, weak consistency',
    figure: '1,263/s',
    nearest: 'create32oneDirectory',
    source: LAZY_PARENTS,
  },
  {
    system: 'dCache Chimera',
    what: 'creates in a directory for each of 64 threads, strong consistency',
    figure: '1,227/s',
    nearest: 'create32spread',
    source: LAZY_PARENTS,
  },
  {
    system: 'dCache Chimera',
    what: 'creates of directories in different directories, 64 threads',
    figure: '654/s',
    nearest: 'createDirectory12',
    source: UNCOUNTED_TAGS,
  },
];
