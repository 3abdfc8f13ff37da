package main

import (
	"database/sql"
	"sync"

	_ "github.com/mattn/go-sqlite3"
)

const schema = `
CREATE TABLE IF NOT EXISTS changes (
	id              TEXT PRIMARY KEY,
	account         TEXT NOT NULL,
	idempotency_key TEXT NOT NULL,
	service_plan    TEXT NOT NULL,
	device_count    INTEGER NOT NULL,
	request_id      TEXT UNIQUE,
	state           TEXT NOT NULL,
	succeeded       INTEGER NOT NULL DEFAULT 0,
	failed          INTEGER NOT NULL DEFAULT 0,
	UNIQUE (account, idempotency_key)
) WITHOUT ROWID;
-- Not in changes: an update of the counts would write the devices again.
CREATE TABLE IF NOT EXISTS change_devices (
	change_id TEXT PRIMARY KEY,
	devices   BLOB NOT NULL -- JSON
);
CREATE TABLE IF NOT EXISTS results (
	seq        INTEGER PRIMARY KEY,
	request_id TEXT NOT NULL,
	digest     BLOB NOT NULL UNIQUE,
	body       BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS results_by_request ON results (request_id, seq);
`

// Maximum number of writes in a commit.
const maxBatch = 512

// Store is the database. One goroutine writes; it commits the waiting writes
// together.
type Store struct {
	read   *sql.DB
	writes chan write

	mu       sync.Mutex
	watchers map[string]map[chan struct{}]struct{} // by request ID
}

type write struct {
	apply func(*Batch) error
	done  chan error
}

// Batch is a transaction of the writer.
type Batch struct {
	tx      *sql.Tx
	stmts   map[string]*sql.Stmt // of the connection
	bound   map[string]*sql.Stmt // of the transaction
	touched map[string]struct{}
}

// Exec executes one of the prepared statements.
func (b *Batch) Exec(query string, args ...any) (sql.Result, error) {
	stmt, ok := b.bound[query]
	if !ok {
		stmt = b.tx.Stmt(b.stmts[query])
		b.bound[query] = stmt
	}
	return stmt.Exec(args...)
}

// OpenStore opens the database and starts the writer.
func OpenStore(path string) (*Store, error) {
	dsn := "file:" + path + "?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate"
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(schema); err != nil {
		return nil, err
	}
	stmts := make(map[string]*sql.Stmt)
	for _, query := range statements {
		stmt, err := db.Prepare(query)
		if err != nil {
			return nil, err
		}
		stmts[query] = stmt
	}
	read, err := sql.Open("sqlite3", dsn+"&_query_only=true")
	if err != nil {
		return nil, err
	}
	read.SetMaxOpenConns(4)
	store := &Store{
		read:     read,
		writes:   make(chan write, 4*maxBatch),
		watchers: make(map[string]map[chan struct{}]struct{}),
	}
	go store.writeLoop(db, stmts)
	return store, nil
}

// Write runs apply in the next commit, and returns after the commit.
func (s *Store) Write(apply func(*Batch) error) error {
	done := make(chan error, 1)
	s.writes <- write{apply, done}
	return <-done
}

func (s *Store) writeLoop(db *sql.DB, stmts map[string]*sql.Stmt) {
	batch := make([]write, 0, maxBatch)
	for first := range s.writes {
		batch = append(batch[:0], first)
	collect:
		for len(batch) < maxBatch {
			select {
			case next := <-s.writes:
				batch = append(batch, next)
			default:
				break collect
			}
		}
		touched, results, err := commit(db, stmts, batch)
		for i, w := range batch {
			if err != nil {
				w.done <- err
			} else {
				w.done <- results[i]
			}
		}
		s.notify(touched)
	}
}

func commit(db *sql.DB, stmts map[string]*sql.Stmt, batch []write) (map[string]struct{}, []error, error) {
	tx, err := db.Begin()
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback()
	b := &Batch{tx: tx, stmts: stmts, bound: make(map[string]*sql.Stmt), touched: make(map[string]struct{})}
	results := make([]error, len(batch))
	for i, w := range batch {
		results[i] = w.apply(b)
	}
	if err := tx.Commit(); err != nil {
		return nil, nil, err
	}
	return b.touched, results, nil
}

// Subscribe returns a channel that gets a value after each commit with new
// results of the request.
func (s *Store) Subscribe(requestID string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers[requestID] == nil {
		s.watchers[requestID] = make(map[chan struct{}]struct{})
	}
	s.watchers[requestID][ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers[requestID], ch)
		if len(s.watchers[requestID]) == 0 {
			delete(s.watchers, requestID)
		}
	}
}

func (s *Store) notify(touched map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for requestID := range touched {
		for ch := range s.watchers[requestID] {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}
