// Made by `python -m tests.support.api_types` from spec/openapi.json; not to be edited.

/** What the API takes and gives, by the names of its description. */
export interface Schemas {
  Access: {
    id: number;
    at: string;
    actor: string;
    kind: "person" | "token" | "embed";
    /** Who it is, as `person 3`. */
    by: string | null;
    address: string;
    action: string;
    asked: { [name: string]: unknown };
    allowed: boolean;
  };
  Accesses: {
    accesses: Schemas["Access"][];
    next: number | null;
  };
  Applied: {
    applied: { [name: string]: unknown };
    notes: string[];
  };
  Background: {
    source?: string | null | undefined;
    table?: string | null | undefined;
    key?: string | null | undefined;
    trace?: string | null | undefined;
    operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
    since?: string | null | undefined;
    until?: string | null | undefined;
    transaction?: number | null | undefined;
    context?: { [name: string]: string | boolean | number | null } | undefined;
    before?: { [name: string]: string | boolean | number | null } | undefined;
    after?: { [name: string]: string | boolean | number | null } | undefined;
    changed?: string | null | undefined;
    from_position?: string | null | undefined;
    to_position?: string | null | undefined;
    /** The oldest come first, instead of the newest. */
    oldest_first?: boolean | undefined;
    /** Null: all. */
    limit?: number | null | undefined;
    format?: "ndjson" | "csv" | undefined;
  };
  Blame: {
    column: string;
    value: unknown;
    previous: unknown;
    /** Whether it is known that this change set it. */
    exact: boolean;
    change: Schemas["BlamedChange"];
  };
  BlameList: {
    columns: Schemas["Blame"][];
  };
  BlamedChange: {
    id: string;
    operation: "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT";
    committed_at: string;
    transaction_id: number;
    source: string;
    context: { [name: string]: unknown };
  };
  /** A row of the relation `changes`. Numbers have all of their digits. */
  Change: {
    id: string;
    database: string;
    schema: string;
    table: string;
    primary_key: string | null;
    operation: "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT";
    before: { [name: string]: unknown };
    after: { [name: string]: unknown };
    context: { [name: string]: unknown };
    committed_at: string;
    queued_at: string;
    created_at: string;
    transaction_id: number;
    position: number;
    commit_position: number;
    ordinal: number;
    epoch: number;
    source: string;
    previous_key: string | null;
    flags: string[] | null;
    rules: number | null;
  };
  /** What is not given stays as it is. */
  ChangedPerson: {
    role?: "viewer" | "editor" | "admin" | null | undefined;
    /** What may be seen, and nothing else: null is the whole history, [] nothing of it. The keys of rows are always seen. */
    scopes?: Schemas["Seen"][] | null | undefined;
    /** With another one the account is forgotten. */
    email?: string | null | undefined;
    /** The account of the provider that came in as them does not any more, and their sessions end. */
    forget_account?: boolean | undefined;
    /** Their sessions end with it. */
    disabled?: boolean | null | undefined;
    /** Also end the tokens that they made, or a token of theirs did. */
    revoke_tokens?: boolean | undefined;
  };
  Changes: {
    changes: Schemas["Change"][];
    /** Give it as `behind`; null where no more follow. */
    next: string | null;
  };
  Checked: {
    place: string;
    findings: Schemas["Finding"][];
    /** None where the source could not be reached. */
    tables: Schemas["Offered"][];
    /** Why the tables are not known. */
    problem: Schemas["Reason"] | null;
  };
  Conflict: {
    table: string;
    key: string | null;
    kind: string;
    message: string;
    change: string | null;
  };
  Count: {
    start: string;
    /** By what they are counted by. */
    values: { [name: string]: string | number | null };
    /** Of all values together that are not among the largest. */
    others: boolean;
    count: number;
  };
  Counts: {
    /** Null where there are no changes. */
    every: "minute" | "hour" | "day" | "week" | "month" | null;
    by: string[];
    counts: Schemas["Count"][];
  };
  Coverage: {
    coverage: { [name: string]: unknown }[];
  };
  Difference: {
    kind: "added" | "removed" | "changed";
    key: string | null;
    previous_key: string | null;
    count: number;
    columns: { [name: string]: Schemas["Side"] };
    unknown: string[];
  };
  Effect: {
    /** `otherwise`: some values are stored otherwise; `silent`: it alters ignored and excluded columns only; `skipped`: a rule of `skip` leaves it out. */
    fate: "same" | "otherwise" | "silent" | "skipped";
    change: Schemas["Change"];
    /** As it would be stored; null where it would not. */
    stored: Schemas["Change"] | null;
  };
  Embed: {
    id: number;
    /** Its name in the header of tokens, and in addresses. */
    kid: string;
    name: string;
    source: string;
    tables: Schemas["EmbeddedTable"][];
    tenant_context: string | null;
    context: string[];
    origins: string[];
    public_key: { [name: string]: string };
    created_by: string;
    created_at: string;
    revoked_at: string | null;
  };
  /** `added` and `removed`: a row that belonged to somebody else before, or does from then on. */
  EmbeddedChange: {
    at: string;
    kind: "created" | "changed" | "deleted" | "added" | "removed";
    table: string;
    label: string | null;
    context: { [name: string]: string };
    columns: Schemas["EmbeddedColumn"][];
  };
  EmbeddedChanges: {
    changes: Schemas["EmbeddedChange"][];
    next: string | null;
    language: string | null;
  };
  /** A side that there is not, or that is not known, is missing. */
  EmbeddedColumn: {
    name: string;
    before?: Schemas["EmbeddedValue"] | null | undefined;
    after?: Schemas["EmbeddedValue"] | null | undefined;
  };
  EmbeddedTable: {
    table: string;
    columns: string[];
    tenant: string | null;
    label: string | null;
  };
  EmbeddedValue: {
    /** Cut in the middle where it is long. Null: NULL. */
    text: string | null;
    /** Why it is not the value itself, such as `masked`. */
    note: string | null;
  };
  Embeds: {
    embeds: Schemas["Embed"][];
  };
  Entry: {
    table: string;
    columns?: string[] | null | undefined;
  };
  /** `rows` and `bytes`: written so far. */
  Export: {
    id: string;
    format: "ndjson" | "csv";
    asked_at: string;
    state: "waiting" | "running" | "done" | "failed";
    rows: number;
    bytes: number;
    error: string | null;
  };
  Exports: {
    exports: Schemas["Export"][];
  };
  Finding: {
    check: string;
    level: "ok" | "warning" | "failure" | "not checked";
    message: string;
    fix: string | null;
    figures: Schemas["Price"][];
  };
  Fine: {
    status: string;
  };
  Gap: {
    from_position: string;
    to_position: string;
    cause: string;
    detail: string;
    detected_at: string;
    accepted_at: string | null;
    table: string | null;
    columns: string[] | null;
    changes: number | null;
  };
  Invited: {
    person: Schemas["Person"];
    /** Signs in once, within a day. It is not told again. */
    link: string;
  };
  IssuedToken: {
    id: number;
    /** It is not told again. */
    token: string;
  };
  Live: {
    /** Whether a worker is connected. */
    slot_active: boolean;
    wal_status: "reserved" | "extended" | "unreserved" | "lost" | null;
    /** WAL that the source keeps for the slot. */
    retained_bytes: number | null;
    /** Bytes that may still be written before the slot is lost; null: no limit. */
    safe_wal_size: number | null;
    /** Bytes a second, measured where there is a limit. */
    wal_rate: number | null;
    seconds_to_full: number | null;
    behind_bytes: number | null;
    tracked: number;
    untracked: Schemas["NotTracked"][];
    failing: Schemas["NotTracked"][];
    uncovered: string[];
  };
  LiveSource: {
    source: string;
    asked_at: string | null;
    /** Null where it could not be asked: see `problem`. */
    live: Schemas["Live"] | null;
    /** What needs somebody, with the command that goes on. */
    findings: string[];
    /** About how many rows a table has, by its OID, of those whose baseline runs. */
    estimates: { [name: string]: number };
    problem: Schemas["Reason"] | null;
  };
  Lives: {
    sources: Schemas["LiveSource"][];
  };
  MadeEmbed: {
    embed: Schemas["Embed"];
    /** What signs tokens, as a JSON Web Key, where none was given. It is not told again, and the server does not keep it. */
    private_key: { [name: string]: string } | null;
  };
  Me: {
    kind: "person" | "token";
    name: string;
    role: "viewer" | "editor" | "admin";
    scopes: Schemas["Entry"][] | null;
  };
  /** The most that its tokens can let somebody see. */
  NewEmbed: {
    name: string;
    /** Whose tables; by default the only one's. */
    source?: string | null | undefined;
    tables: Schemas["NewTable"][];
    /** A member of the context that has to be the tenant, too. */
    tenant_context?: string | null | undefined;
    /** Members of the context that may be told; the first that has a value is who. */
    context?: string[] | undefined;
    /** Of the pages that show it. */
    origins: string[];
    /** PEM of the application's own, on the curve P-256. Null: a pair is made, whose private key is told this once. */
    public_key?: string | null | undefined;
  };
  NewPerson: {
    /** As the log has it. */
    name: string;
    email?: string | null | undefined;
    role: "viewer" | "editor" | "admin";
    /** What may be seen, and nothing else: null is the whole history, [] nothing of it. The keys of rows are always seen. */
    scopes?: Schemas["Seen"][] | null | undefined;
  };
  NewTable: {
    table: string;
    /** Those that may be told: no others, the key neither. */
    columns: string[];
    /** The column that says whose a row is, which need not be told. Null, which has to be said: each of its rows is for every tenant. */
    tenant: string | null;
    /** One of the columns, whose value names a row in sentences. */
    label?: string | null | undefined;
  };
  NewToken: {
    /** As the log has it. */
    name: string;
    role: "viewer" | "editor" | "admin";
    /** What may be seen, and nothing else: null is the whole history, [] nothing of it. The keys of rows are always seen. */
    scopes?: Schemas["Seen"][] | null | undefined;
    /** Null: until it is revoked. */
    days?: number | null | undefined;
  };
  NotTracked: {
    table: string;
    reason: string;
    fix: string | null;
  };
  Offered: {
    schema: string;
    name: string;
    /** The table above a partition. */
    root: string | null;
    identity: string;
    tracked: boolean;
    wanted: boolean;
    /** Why it can't be tracked as it is. */
    reason: string | null;
    fix: string | null;
    never_full: string | null;
    /** About, as PostgreSQL's statistics have it. */
    rows: number | null;
    bytes: number | null;
  };
  People: {
    people: Schemas["Person"][];
  };
  Person: {
    id: number;
    name: string;
    /** By which they come in from a provider. */
    email: string | null;
    role: "viewer" | "editor" | "admin";
    scopes: Schemas["Entry"][] | null;
    created_at: string;
    disabled_at: string | null;
  };
  Plan: {
    /** What to apply: the plan that was seen, and no other. */
    plan: string;
    source: string;
    position: string;
    changes: number;
    filters: { [name: string]: unknown };
    rows: Schemas["PlannedRow"][];
    conflicts: Schemas["Conflict"][];
    notes: string[];
    sql: string;
  };
  PlannedField: {
    column: string;
    present: string | null;
    expected: string | null;
    target: string | null;
    mark: "set" | "done" | "conflict";
    between: string | null;
  };
  PlannedRow: {
    table: string;
    key: string;
    action: "insert" | "update" | "delete";
    done: boolean;
    fields: Schemas["PlannedField"][];
    conflicts: Schemas["Conflict"][];
    changes: string[];
  };
  /** What both replica identities of a table cost a day. */
  Price: {
    table: string;
    identity: "default" | "full";
    changes_a_day: number;
    row_bytes: number | null;
    full_wal_bytes_a_day: number | null;
    default_lookups_a_day: number;
    default_lookup_seconds_a_day: number | null;
  };
  Reason: {
    reason: string;
    fix: string | null;
  };
  Record: {
    /** Null where there was none then. */
    row: Schemas["Row"] | null;
    /** Why it is not surely known, with `allow_gaps`. */
    uncertain: string | null;
  };
  Row: {
    key: string | null;
    values: { [name: string]: unknown };
    flags: string[];
  };
  /** A table, in which `*` stands for anything, and its columns that may be seen. */
  Seen: {
    table: string;
    /** Null: all of them. */
    columns?: string[] | null | undefined;
  };
  /** Without a side that is not there, or not known. */
  Side: {
    before?: unknown | undefined;
    after?: unknown | undefined;
  };
  Source: {
    source: string;
    database: string;
    slot: string;
    publication: string;
    epoch: number | null;
    position: string | null;
    committed_at: string | null;
    updated_at: string | null;
    /** Seconds since the checkpoint was written. */
    age: number | null;
    dropped: number;
    gaps: Schemas["Gap"][];
    paused_at: string | null;
    removed_at: string | null;
    health: "ok" | "paused" | "removed" | "unfinished" | "gap";
    /** What needs somebody, with the command that goes on. */
    findings: string[];
  };
  Sources: {
    sources: Schemas["Source"][];
  };
  Table: {
    source: string;
    table: string;
    partition: string | null;
    /** Whether all of its rows are known, and if not, why. */
    state: string;
    complete_since: string | null;
    /** Stretches in which changes are missing. */
    missing: number;
  };
  Tables: {
    tables: Schemas["Table"][];
  };
  /** A source of the server's settings by its name; or a database by its address. */
  Target: {
    /** Name of a source in the server's settings. */
    source?: string | null | undefined;
    host?: string | undefined;
    port?: number | undefined;
    database?: string | undefined;
    user?: string | undefined;
    /** Used for this request, and kept nowhere. */
    password?: string | undefined;
    /** Whether the connection has to be encrypted. */
    sslmode?: "prefer" | "require" | undefined;
  };
  Token: {
    id: number;
    name: string;
    role: "viewer" | "editor" | "admin";
    scopes: Schemas["Entry"][] | null;
    /** Number of who made it. */
    person: number | null;
    created_by: string;
    created_at: string;
    expires_at: string | null;
    revoked_at: string | null;
  };
  Tokens: {
    tokens: Schemas["Token"][];
  };
  /**
   * What one transaction did, in short: `changes` are its first, and `count` is how many of them
   * were looked at; `more` says that it has others.
   */
  Transaction: {
    transaction_id: number;
    source: string;
    database: string;
    committed_at: string;
    commit_position: number;
    count: number;
    more: boolean;
    /** By table and operation, how many. */
    tables: { [name: string]: { [name: string]: number } };
    /** Of the first of them. */
    context: { [name: string]: unknown };
    changes: Schemas["Change"][];
  };
  Transactions: {
    transactions: Schemas["Transaction"][];
    next: string | null;
  };
  /** Which changes, and which of their rows. */
  Wanted: {
    source?: string | null | undefined;
    table?: string | null | undefined;
    key?: string | null | undefined;
    trace?: string | null | undefined;
    operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
    since?: string | null | undefined;
    until?: string | null | undefined;
    transaction?: number | null | undefined;
    context?: { [name: string]: string | boolean | number | null } | undefined;
    before?: { [name: string]: string | boolean | number | null } | undefined;
    after?: { [name: string]: string | boolean | number | null } | undefined;
    changed?: string | null | undefined;
    from_position?: string | null | undefined;
    to_position?: string | null | undefined;
    /** Of changes, of which any is meant. */
    ids?: string[] | undefined;
    /** TABLE or TABLE:KEY: only these rows. */
    only?: string[] | undefined;
    /** TABLE or TABLE:KEY: all but these rows. */
    without?: string[] | undefined;
  };
  Wished: {
    source?: string | null | undefined;
    table?: string | null | undefined;
    key?: string | null | undefined;
    trace?: string | null | undefined;
    operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
    since?: string | null | undefined;
    until?: string | null | undefined;
    transaction?: number | null | undefined;
    context?: { [name: string]: string | boolean | number | null } | undefined;
    before?: { [name: string]: string | boolean | number | null } | undefined;
    after?: { [name: string]: string | boolean | number | null } | undefined;
    changed?: string | null | undefined;
    from_position?: string | null | undefined;
    to_position?: string | null | undefined;
    /** Of changes, of which any is meant. */
    ids?: string[] | undefined;
    /** TABLE or TABLE:KEY: only these rows. */
    only?: string[] | undefined;
    /** TABLE or TABLE:KEY: all but these rows. */
    without?: string[] | undefined;
    /** What the plan that was seen is called. */
    plan: string;
    /** Leave rows that have conflicts alone, and rows that need these. */
    skip_conflicts?: boolean | undefined;
  };
  /** `rules` as the table `[rules]` of the file of settings has them. */
  ConnectingTried: {
    source?: string | null | undefined;
    /** Only changes of this table. */
    table?: string | null | undefined;
    rules: { [name: string]: unknown };
  };
  ShapesOfSourcesTried: {
    changes: Schemas["Effect"][];
    /** Rules that match nothing, each in a sentence. */
    unmatched: string[];
  };
  /** https://www.rfc-editor.org/rfc/rfc9457 */
  Problem: {
    type: string;
    title: string;
    status: number;
    /** What failed, and on what. */
    detail: string;
    /** What to do. */
    fix?: string | null | undefined;
  };
}

/** What can be asked, below `/api/v1`. */
export interface Paths {
  "/sources": {
    /** How far the history of each source is, what is missing in it, and what needs somebody. */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["Sources"];
      lines: false;
    };
  };
  "/tables": {
    /** The tables that the history has, or had, and whether all of their rows are known. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** Glob SCHEMA.TABLE of the tables; without a schema in public. */
        table?: string | null | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Tables"];
      lines: false;
    };
  };
  "/coverage": {
    /** Of each table from where to where its changes are complete, and what is missing and why. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** Glob SCHEMA.TABLE of the tables; without a schema in public. */
        table?: string | null | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Coverage"];
      lines: false;
    };
  };
  "/sources/live": {
    /**
     * What the sources that the server has in its settings say themselves, some seconds ago at
     * most: slot and WAL that is kept for it, lag, tables that are not tracked; and how far baselines
     * are. That takes the right to see all tables.
     */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["Lives"];
      lines: false;
    };
  };
  "/sources/checks": {
    /**
     * What `bemi doctor` finds: whether source and history are as Bemi needs them, each finding
     * with its fix; and the source's tables, with why one can't be tracked. Nothing is changed.
     *
     * Of a source of the server's settings by its name; by its address only where the server was
     * started with `--connect-any`.
     */
    post: {
      query: {};
      path: {};
      body: Schemas["Target"];
      answer: Schemas["Checked"];
      lines: false;
    };
  };
  "/sources/rules": {
    /**
     * What rules would have made of the last changes of the tables that they are about, 100 of at
     * most 20 tables, and which of the rules match nothing. Nothing is stored. Digests are made with
     * a key of the server's own.
     */
    post: {
      query: {};
      path: {};
      body: Schemas["ConnectingTried"];
      answer: Schemas["ShapesOfSourcesTried"];
      lines: false;
    };
  };
  "/changes": {
    /**
     * Changes, the newest first, page by page.
     *
     * With `table` and `key` it is the timeline of a record, under its earlier keys too.
     */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** The oldest come first, instead of the newest. */
        oldest_first?: boolean | undefined;
        /** What `next` was: the page that follows. */
        behind?: string | null | undefined;
        /** At most so many. */
        limit?: number | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Changes"];
      lines: false;
    };
  };
  "/changes/{id}": {
    /** The one with this id. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
      };
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Change"];
      lines: false;
    };
  };
  "/changes/{id}/diff": {
    /** What a change did, column by column. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
      };
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Difference"];
      lines: false;
    };
  };
  "/transactions": {
    /**
     * Transactions in short, by the changes of theirs that the filters let through, the newest
     * first. `limit` and `behind` are of transactions.
     */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** The oldest come first, instead of the newest. */
        oldest_first?: boolean | undefined;
        /** What `next` was: the page that follows. */
        behind?: string | null | undefined;
        /** At most so many. */
        limit?: number | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Transactions"];
      lines: false;
    };
  };
  "/transactions/{transaction}": {
    /** All that one transaction did, in order. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** The oldest come first, instead of the newest. */
        oldest_first?: boolean | undefined;
        /** What `next` was: the page that follows. */
        behind?: string | null | undefined;
        /** At most so many. */
        limit?: number | undefined;
      };
      path: {
        transaction: string | number;
      };
      body: undefined;
      answer: Schemas["Changes"];
      lines: false;
    };
  };
  "/traces/{trace}": {
    /** All that one request or trace did, over all sources, in the order of the commits. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** The oldest come first, instead of the newest. */
        oldest_first?: boolean | undefined;
        /** What `next` was: the page that follows. */
        behind?: string | null | undefined;
        /** At most so many. */
        limit?: number | undefined;
      };
      path: {
        trace: string | number;
      };
      body: undefined;
      answer: Schemas["Changes"];
      lines: false;
    };
  };
  "/stats": {
    /** How many changes there were when, 0 too; by up to two things that they have. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** table, operation, source, user, transaction or context.KEY; at most twice. */
        by?: string[] | undefined;
        /** How long each bucket is, in UTC; without it what fits the range. */
        every?: "minute" | "hour" | "day" | "week" | "month" | null | undefined;
        /** The largest so many values, and all others together. */
        top?: number | null | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Counts"];
      lines: false;
    };
  };
  "/record/changes": {
    /**
     * All changes of a record, also under its other keys, the newest first. Takes `table` and
     * `key`.
     */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** The oldest come first, instead of the newest. */
        oldest_first?: boolean | undefined;
        /** What `next` was: the page that follows. */
        behind?: string | null | undefined;
        /** At most so many. */
        limit?: number | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Changes"];
      lines: false;
    };
  };
  "/record/blame": {
    /** Which change gave each column of a record the value that it has. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table: string;
        /** Primary key; a composite one as JSON: `["1","2"]`. */
        key: string;
      };
      path: {};
      body: undefined;
      answer: Schemas["BlameList"];
      lines: false;
    };
  };
  "/record/at": {
    /** A record as it was. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table: string;
        /** A time such as `yesterday 09:00`, a position like `0/1A2B3C4D`, or a change's id. */
        when: string;
        /** Tell what there is where the history does not know all. */
        allow_gaps?: boolean | undefined;
        /** Primary key; a composite one as JSON: `["1","2"]`. */
        key: string;
      };
      path: {};
      body: undefined;
      answer: Schemas["Record"];
      lines: false;
    };
  };
  "/table/at": {
    /**
     * The rows of a table as they were, one on a line: its key, its values, its flags; of CSV the
     * values only.
     *
     * With `allow_gaps`, rows that are not surely known have the flag `uncertain`, and the header
     * `Bemi-Uncertain` says why, percent-encoded: others may be missing.
     */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table: string;
        /** A time such as `yesterday 09:00`, a position like `0/1A2B3C4D`, or a change's id. */
        when: string;
        /** Tell what there is where the history does not know all. */
        allow_gaps?: boolean | undefined;
        /** One JSON object per row and line, or CSV. */
        format?: "ndjson" | "csv" | undefined;
      };
      path: {};
      body: undefined;
      answer: undefined;
      lines: true;
    };
  };
  "/table/diff": {
    /** What rows of a table, or one of them, differ in between two times: one on a line. */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table: string;
        /** Only the record with this key. */
        key?: string | null | undefined;
        /** A time such as `yesterday 09:00`, a position like `0/1A2B3C4D`, or a change's id. */
        start: string;
        /** The same; by default what was captured last. */
        end?: string | null | undefined;
      };
      path: {};
      body: undefined;
      answer: undefined;
      lines: true;
    };
  };
  "/stream": {
    /**
     * Changes as they come: events `change`; and `missing` where the history lacks some.
     *
     * In the order of each source's log, whole transactions at a time.
     */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** Where to begin, without `Last-Event-ID`: an event's id, `now`, `beginning`, a time, a position or a change's id. By default now. */
        start?: string | null | undefined;
        /** The rows that baselines read, too. */
        baseline?: boolean | undefined;
      };
      path: {};
      body: undefined;
      answer: undefined;
      lines: false;
    };
  };
  "/export": {
    /**
     * All changes that the filters let through, as of one moment. An export that breaks off ends
     * without the end of its body, so that no client takes it for whole.
     */
    get: {
      query: {
        /** Name of the source. */
        source?: string | null | undefined;
        /** SCHEMA.TABLE, or a table in the schema public. */
        table?: string | null | undefined;
        /** Primary key of the row; a composite one as JSON: `["1","2"]`. */
        key?: string | null | undefined;
        /** A trace_id or request_id in the context. */
        trace?: string | null | undefined;
        /** What was done; repeatable. */
        operation?: ("create" | "update" | "delete" | "truncate" | "snapshot")[] | undefined;
        /** Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`. */
        since?: string | null | undefined;
        /** Committed at or before; written like `since`. */
        until?: string | null | undefined;
        /** Number of the transaction on the source. */
        transaction?: number | null | undefined;
        /** KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable. */
        context?: string[] | undefined;
        /** COLUMN=VALUE in the row before the change, compared as text; repeatable. */
        before?: string[] | undefined;
        /** COLUMN=VALUE in the row after the change, compared as text; repeatable. */
        after?: string[] | undefined;
        /** Column that an update changed. */
        changed?: string | null | undefined;
        /** Committed at this position of the source's log or behind it. */
        from_position?: string | null | undefined;
        /** Committed at this position or before it. */
        to_position?: string | null | undefined;
        /** Of one change. */
        id?: string | null | undefined;
        /** The oldest come first, instead of the newest. */
        oldest_first?: boolean | undefined;
        /** At most so many; without it, all. */
        limit?: number | null | undefined;
        /** One JSON object per line, or CSV. */
        format?: "ndjson" | "csv" | undefined;
      };
      path: {};
      body: undefined;
      answer: undefined;
      lines: true;
    };
  };
  "/exports": {
    /** Your own. */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["Exports"];
      lines: false;
    };
    /** The same behind your back. The file is kept for an hour, by this server alone. */
    post: {
      query: {};
      path: {};
      body: Schemas["Background"];
      answer: Schemas["Export"];
      lines: false;
    };
  };
  "/exports/{id}": {
    /** How far it is. */
    get: {
      query: {};
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Export"];
      lines: false;
    };
    /** Give it up, or its file. */
    delete: {
      query: {};
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Exports"];
      lines: false;
    };
  };
  "/exports/{id}/file": {
    /** What it came to, when it is done. */
    get: {
      query: {};
      path: {
        id: string | number;
      };
      body: undefined;
      answer: undefined;
      lines: true;
    };
  };
  "/reverts/plan": {
    /**
     * What undoing changes would do to the source, row by row, with what stands in the way.
     * Nothing is written.
     */
    post: {
      query: {};
      path: {};
      body: Schemas["Wanted"];
      answer: Schemas["Plan"];
      lines: false;
    };
  };
  "/reverts/apply": {
    /**
     * Do what a plan says, in one transaction, after looking at each row again; all of it, or,
     * with `skip_conflicts`, what can be done. 409 where the plan would be another by now.
     */
    post: {
      query: {};
      path: {};
      body: Schemas["Wished"];
      answer: Schemas["Applied"];
      lines: false;
    };
  };
  "/me": {
    /** Who asks, and what may be seen. */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["Me"];
      lines: false;
    };
  };
  "/people": {
    /** Who may sign in, and who might once. */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["People"];
      lines: false;
    };
    /** Somebody new, and the link by which they sign in, once. */
    post: {
      query: {};
      path: {};
      body: Schemas["NewPerson"];
      answer: Schemas["Invited"];
      lines: false;
    };
  };
  "/people/{id}": {
    /**
     * Another role or other tables; or disable somebody, whose sessions end with it, and with
     * `revoke_tokens` the tokens, too, that they made for programs.
     */
    patch: {
      query: {};
      path: {
        id: string | number;
      };
      body: Schemas["ChangedPerson"];
      answer: Schemas["Person"];
      lines: false;
    };
  };
  "/people/{id}/link": {
    /** Another link to sign in; one that was not used ends. */
    post: {
      query: {};
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Invited"];
      lines: false;
    };
  };
  "/tokens": {
    /** Those of programs, without what they are. */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["Tokens"];
      lines: false;
    };
    /** For a program. */
    post: {
      query: {};
      path: {};
      body: Schemas["NewToken"];
      answer: Schemas["IssuedToken"];
      lines: false;
    };
  };
  "/tokens/{id}": {
    /** It does not hold from now on. */
    delete: {
      query: {};
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Tokens"];
      lines: false;
    };
  };
  "/accesses": {
    /** Who has asked for what here, the newest first. */
    get: {
      query: {
        /** Who: `person 3`, `token 4` or `embed 5`. */
        by?: string | null | undefined;
        /** As the log has it. */
        action?: string | null | undefined;
        /** Only what was refused. */
        refused?: boolean | undefined;
        /** At or after: `2h`, `yesterday 14:30`. */
        since?: string | null | undefined;
        /** At or before; written like `since`. */
        until?: string | null | undefined;
        /** What asked for this table by its name. */
        table?: string | null | undefined;
        /** What asked for a record by this key. */
        key?: string | null | undefined;
        /** What `next` was. */
        behind?: number | null | undefined;
        limit?: number | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["Accesses"];
      lines: false;
    };
  };
  "/embeds": {
    /** What applications may show, those that are revoked too. */
    get: {
      query: {};
      path: {};
      body: undefined;
      answer: Schemas["Embeds"];
      lines: false;
    };
    /** For an application, which signs tokens for it. */
    post: {
      query: {};
      path: {};
      body: Schemas["NewEmbed"];
      answer: Schemas["MadeEmbed"];
      lines: false;
    };
  };
  "/embeds/{id}": {
    /** No token for it holds from now on. */
    delete: {
      query: {};
      path: {
        id: string | number;
      };
      body: undefined;
      answer: Schemas["Embeds"];
      lines: false;
    };
  };
  "/embed/changes": {
    /**
     * What happened, the newest first, for a customer of an application: of what the token says,
     * and told so that no number loses digits in a browser. A page may be shorter than its limit.
     */
    get: {
      query: {
        /** Only this one of the token's tables. */
        table?: string | null | undefined;
        /** Only this record of the table. */
        key?: string | null | undefined;
        /** What `next` was: the page that follows. */
        behind?: string | null | undefined;
        limit?: number | undefined;
      };
      path: {};
      body: undefined;
      answer: Schemas["EmbeddedChanges"];
      lines: false;
    };
  };
}
