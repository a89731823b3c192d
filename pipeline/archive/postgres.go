package archive

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"chatxray/pipeline"
)

// postgresIndex is an index in a schema of a PostgreSQL database, for several processes over one folder.
type postgresIndex struct {
	config *pgx.ConnConfig
	schema string
	class  int32 // of its advisory locks

	write, readers *pgxpool.Pool
	texts          sync.Map // what planned has made
}

// postgresSchema makes an index of the version postgresBase.
//
//go:embed postgres.sql
var postgresSchema string

const (
	postgresBase    = 3          // older versions were SQLite's alone
	schemaName      = "chatxray" // where the URL's search_path names no other
	versionTable    = "chatxray_index"
	postgresBooking = 4
	lockBuckets     = 512 // one transaction has at most so many locks, of the thousands for which a server has memory
)

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func newPostgres(url string) (dialect, error) {
	config, err := pgx.ParseConfig(url) // its error may quote the URL
	if err != nil {
		return nil, fmt.Errorf("%w: archive.index: not the URL of a PostgreSQL database (postgres://user:password@host:5432/database)", pipeline.ErrInvalid)
	}
	p := &postgresIndex{config: config, schema: schemaName}
	if s := config.RuntimeParams["search_path"]; s != "" {
		p.schema = s
	}
	if !plainName.MatchString(p.schema) || p.schema == "public" || strings.HasPrefix(p.schema, "pg_") {
		return nil, fmt.Errorf("%w: archive.index: search_path is not the name of a schema that the index has for itself, in small letters", pipeline.ErrInvalid)
	}
	h := fnv.New32a()
	h.Write([]byte(p.schema))
	p.class = int32(h.Sum32())
	for name, value := range map[string]string{
		"search_path":                         p.schema,
		"application_name":                    "chatxray",
		"synchronous_commit":                  "on",
		"lock_timeout":                        "10s", // as SQLite's busy_timeout
		"idle_in_transaction_session_timeout": "30s", // of a process that was stopped in the middle
	} {
		if _, given := config.RuntimeParams[name]; !given {
			config.RuntimeParams[name] = value
		}
	}
	return p, nil
}

func (*postgresIndex) shared() bool { return true }

// A transaction waits for answers most of its time.
func (*postgresIndex) booking() int { return postgresBooking }

// database is for what is seldom asked and for searches, whose plans depend on what is searched for.
func (p *postgresIndex) database(connections int, readOnly string) database {
	config := p.config.Copy()
	config.RuntimeParams["default_transaction_read_only"], config.RuntimeParams["plan_cache_mode"] = readOnly, "force_custom_plan"
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return database{db, p}
}

// pool is for statements that every study needs: they are planned once.
func (p *postgresIndex) pool(connections int32, readOnly string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(p.config.ConnString())
	if err != nil {
		return nil, err
	}
	config.ConnConfig, config.MaxConns = p.config.Copy(), connections
	config.ConnConfig.RuntimeParams["default_transaction_read_only"] = readOnly
	return pgxpool.NewWithConfig(context.Background(), config)
}

func (p *postgresIndex) open(a *Archive) (fresh bool, err error) {
	if p.write, err = p.pool(postgresBooking+3, "off"); err != nil { // instances, a deletion, and what the deletion removes
		return false, p.unusable(err)
	}
	before, err := a.indexVersion(context.Background())
	if err == nil {
		err = a.migrate()
	}
	if err == nil {
		p.readers, err = p.pool(2, "on")
	}
	if err != nil {
		p.write.Close()
		return false, p.unusable(err)
	}
	a.read = p.database(4, "on")
	return before == 0, nil
}

func (p *postgresIndex) close() error {
	p.readers.Close()
	p.write.Close()
	return nil
}

// unusable says which index cannot be used, without its password.
func (p *postgresIndex) unusable(err error) error {
	return fmt.Errorf("the archive's index, schema %s of the PostgreSQL database %s at %s, cannot be used: %w", p.schema, p.config.Database,
		net.JoinHostPort(p.config.Host, strconv.Itoa(int(p.config.Port))), indexError(err))
}

func (p *postgresIndex) look(ctx context.Context, a *Archive, _ bool) error {
	a.read = p.database(4, "on")
	version, err := p.version(ctx, a.read)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = p.unusable(err)
	case version == 0:
		err = fmt.Errorf("%w: the PostgreSQL database has no index in its schema %s to compare the files with", pipeline.ErrNotFound, p.schema)
	default:
		err = checkable(version)
	}
	if err != nil {
		a.read.Close()
	}
	return err
}

// remove drops the tables and leaves the schema, which may be another's to make.
func (p *postgresIndex) remove(ctx context.Context, _ *Archive) error {
	db := p.database(1, "off")
	defer db.Close()
	version, err := p.version(ctx, db)
	if err == nil && version > 0 {
		_, err = db.ExecContext(ctx, `DO $$ DECLARE t text; BEGIN
			FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP EXECUTE format('DROP TABLE %I CASCADE', t); END LOOP; END $$`)
	}
	if err != nil {
		return p.unusable(err)
	}
	return nil
}

// statement numbers the placeholders, $1 for ?1 and for the first ?, and makes values such as PostgreSQL has: numbers for truth, and text
// without NUL, in UTF-8. What has no values may be several statements, and stays as it is.
func (*postgresIndex) statement(text string, args []any) (string, []any) {
	if len(args) == 0 {
		return text, nil
	}
	return numbered(text), postgresValues(args)
}

// planned is statement for what is asked again and again: its text is made once.
func (p *postgresIndex) planned(text string, args []any) (string, []any) {
	if len(args) == 0 {
		return text, nil
	}
	known, ok := p.texts.Load(text)
	if !ok {
		known, _ = p.texts.LoadOrStore(text, numbered(text))
	}
	return known.(string), postgresValues(args)
}

func numbered(text string) string {
	var b strings.Builder
	quoted, n := false, 0
	for i := range len(text) {
		if text[i] == '\'' {
			quoted = !quoted
		}
		if text[i] != '?' || quoted {
			b.WriteByte(text[i])
			continue
		}
		b.WriteByte('$')
		if n++; i+1 == len(text) || text[i+1] < '0' || text[i+1] > '9' { // else its number follows
			b.WriteString(strconv.Itoa(n))
		}
	}
	return b.String()
}

func postgresValues(args []any) []any {
	values := make([]any, len(args))
	for i, v := range args {
		switch v := v.(type) {
		case bool:
			values[i] = 0
			if v {
				values[i] = 1
			}
		case string:
			if strings.Contains(v, "\x00") {
				v = strings.ReplaceAll(v, "\x00", "")
			}
			values[i] = strings.ToValidUTF8(v, "\uFFFD")
		default:
			values[i] = v
		}
	}
	return values
}

func (*postgresIndex) integer(column string) string { return "to_integer(" + column + ")" }

func (p *postgresIndex) lock(ctx context.Context, tx writing, studies ...string) error {
	var wanted [lockBuckets]bool
	for _, s := range studies {
		h := fnv.New32a()
		h.Write([]byte(s))
		wanted[h.Sum32()%lockBuckets] = true
	}
	var keys []string // in their order: two transactions never wait for each other
	for key, w := range wanted {
		if w {
			keys = append(keys, strconv.Itoa(key))
		}
	}
	switch len(keys) {
	case 0:
		return nil
	case 1:
		return tx.exec(ctx, "SELECT pg_advisory_xact_lock(?1, CAST(?2 AS int))", p.class, keys[0])
	}
	err := tx.exec(ctx, "SELECT pg_advisory_xact_lock(?1, k) FROM unnest(CAST(?2 AS int[])) AS k", p.class, "{"+strings.Join(keys, ",")+"}")
	return err
}

func (p *postgresIndex) locked(ctx context.Context, tx writing) error {
	err := tx.exec(ctx, "SELECT pg_advisory_xact_lock(?1, -1)", p.class)
	return err
}

func (p *postgresIndex) version(ctx context.Context, q querier) (version int, err error) {
	var encoding string
	var tables, ours int
	err = q.row(ctx, `SELECT current_setting('server_encoding'), count(c.oid), count(c.oid) FILTER (WHERE c.relname = ?2)
		FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') WHERE n.nspname = ?1`, p.schema, versionTable).Scan(&encoding, &tables, &ours)
	switch {
	case err != nil:
		return 0, err
	case encoding != "UTF8":
		return 0, fmt.Errorf("%w: the database is in the encoding %s; make one with ENCODING 'UTF8'", pipeline.ErrUnsupported, encoding)
	case tables > 0 && ours == 0:
		return 0, fmt.Errorf("%w: the schema %s holds tables of something else; name another one in the URL of archive.index (?search_path=NAME)", pipeline.ErrConflict, p.schema)
	case ours == 0:
		return 0, nil
	}
	return version, q.row(ctx, "SELECT version FROM "+versionTable).Scan(&version)
}

func (p *postgresIndex) migration(version int) (string, int) {
	if version < postgresBase {
		schema := fmt.Sprintf("DO $$ BEGIN IF to_regnamespace('%[1]s') IS NULL THEN CREATE SCHEMA %[1]s; END IF; END $$;\n", p.schema)
		return schema + postgresSchema, postgresBase
	}
	if m := migrations[version]; m.postgres != "" {
		return m.postgres, version + 1
	}
	return migrations[version].sql, version + 1
}

func (*postgresIndex) setVersion(ctx context.Context, tx writing, version int) error {
	err := tx.exec(ctx, "UPDATE "+versionTable+" SET version = ?", version)
	return err
}

var errAway = fmt.Errorf("%w: the index's PostgreSQL does not answer", pipeline.ErrBusy)

// postgresError is an error of PostgreSQL, or of the way to it, with its sentinel; nil for any other. Messages may quote what was stored.
func postgresError(err error) error {
	var of *pgconn.PgError
	var connecting *pgconn.ConnectError
	var network *net.OpError
	switch {
	case errors.As(err, &connecting):
		if errors.As(err, &of) { // refused before anything was asked
			return fmt.Errorf("%w: %s", errAway, of.Message)
		}
		if errors.As(err, &network) {
			return fmt.Errorf("%w: %w", errAway, network.Err)
		}
		return errAway
	case errors.As(err, &of):
		switch {
		case of.Code == "53100":
			return fmt.Errorf("%w: the index cannot grow", pipeline.ErrFull)
		case of.Code == "55P03", of.Code == "40001", of.Code == "40P01", of.Code == "23505", of.Code == "57014":
			return fmt.Errorf("%w: another process writes the same (%s)", pipeline.ErrBusy, of.Code)
		case strings.HasPrefix(of.Code, "53"), strings.HasPrefix(of.Code, "08"), strings.HasPrefix(of.Code, "57P"), of.Code == "25P03", of.Code == "25P02", of.Code == "25006":
			return fmt.Errorf("%w (%s)", errAway, of.Code)
		case of.Code == "42501":
			return fmt.Errorf("%w: the user of archive.index may not do this (42501); it needs the schema, or the right to create it", pipeline.ErrInvalid)
		}
		if strings.HasPrefix(of.Code, "42") || strings.HasPrefix(of.Code, "0A") { // about names and statements, which are ours
			return fmt.Errorf("index: PostgreSQL error %s: %s", of.Code, of.Message)
		}
		return fmt.Errorf("index: PostgreSQL error %s", of.Code)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, sql.ErrTxDone), errors.Is(err, pgconn.ErrConnClosed):
		return errAway
	}
	return nil
}

// Examine tells in words what is found at the URL of an index, and changes nothing.
func Examine(ctx context.Context, index pipeline.Secret) (said string, err error) {
	d, err := dialectOf(index)
	if err != nil {
		return "", err
	}
	p, ok := d.(*postgresIndex)
	if !ok {
		return "SQLite in the archive's folder", nil
	}
	db := p.database(1, "on")
	defer db.Close()
	version, err := p.version(ctx, db)
	switch {
	case err != nil:
		return "", p.unusable(err)
	case version == 0:
		return "PostgreSQL answers; the index is made at the first start", nil
	case version > len(migrations):
		return "", newer(version)
	}
	return fmt.Sprintf("PostgreSQL answers; the index in schema %s has version %d of %d", p.schema, version, len(migrations)), nil
}
