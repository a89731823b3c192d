package archive_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"chatxray/e2e/postgres"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// onEach runs a test over every kind of index.
func onEach(t *testing.T, f func(t *testing.T)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, f)
	}
}

func onPostgres(t testing.TB) bool { return strings.Contains(t.Name(), "/postgres") }

// cluster is one PostgreSQL for the whole run.
var cluster = sync.OnceValues(func() (*postgres.Server, error) {
	s, err := postgres.Start()
	if err == nil {
		_, err = s.Create("archives")
	}
	return s, err
})

func stopCluster() {
	if s, err := cluster(); err == nil {
		s.Close()
	}
}

func server(t testing.TB) *postgres.Server {
	t.Helper()
	s, err := cluster()
	if errors.Is(err, postgres.ErrAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var schemas = struct {
	sync.Mutex
	of map[string]string // by the archive's folder
}{of: map[string]string{}}

// schemaOf names the schema of the archive in dir.
func schemaOf(dir string) string {
	schemas.Lock()
	defer schemas.Unlock()
	if schemas.of[dir] == "" {
		schemas.of[dir] = fmt.Sprint("archive", len(schemas.of))
	}
	return schemas.of[dir]
}

// indexed adds the index of the kind that the test runs over.
func indexed(t testing.TB, dir string, opts archive.Options) archive.Options {
	t.Helper()
	if onPostgres(t) {
		opts.Index = pipeline.Secret(server(t).URL("archives") + "&search_path=" + schemaOf(dir))
	}
	return opts
}

// loseIndex takes the index of the archive in dir away.
func loseIndex(t testing.TB, dir string) {
	t.Helper()
	var err error
	if onPostgres(t) {
		err = server(t).Query("archives", "DROP SCHEMA "+schemaOf(dir)+" CASCADE")
	} else {
		err = os.Remove(filepath.Join(dir, "index.db"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// uploads are the files of uploads under way in the archive in dir.
func uploads(t testing.TB, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "incoming"), func(path string, f fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".part") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
