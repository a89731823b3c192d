package chaos

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// store is a versitygw, an S3 server whose objects are files of a folder, and what stands before it.
type store struct {
	*front
	gateway *process
	dir     string // of the service's objects
	proxy   *httputil.ReverseProxy
}

const (
	bucket = "chaos"
	prefix = "of/radiographs"
)

func newStore(t *testing.T, logs string) *store {
	t.Helper()
	cmd := exec.Command("bash", "scripts/tool.sh", "versitygw")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	bin, err := cmd.Output()
	if err != nil {
		missing(t, fmt.Sprintf("versitygw is not there (bash scripts/tool.sh versitygw): %v", err))
	}
	dir, at := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s := &store{dir: filepath.Join(dir, bucket, prefix)}
	s.gateway = keep(t, &process{name: "versitygw", log: filepath.Join(logs, "versitygw.log"),
		argv: []string{strings.TrimSpace(string(bin)), "--access", "tester", "--secret", "of-the-tests", "--port", at, "posix", dir}})
	client, err := minio.New(at, &minio.Options{Creds: credentials.NewStaticV4("tester", "of-the-tests", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "versitygw to start", func() error { return client.MakeBucket(context.Background(), bucket, minio.MakeBucketOptions{}) })
	target := &url.URL{Scheme: "http", Host: at}
	s.proxy = &httputil.ReverseProxy{Transport: &http.Transport{MaxIdleConnsPerHost: 32},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // as without a proxy
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		}}
	s.front = newFront(t, s)
	return s
}

// yaml is the service's configuration of it. Its time-out is shorter than the store may hang.
func (s *store) yaml() string {
	return fmt.Sprintf(`objects: "s3://%s/%s", s3: {endpoint: "http://%s", access_key: tester, secret_key: of-the-tests, timeout_seconds: 2}`, bucket, prefix, s.addr)
}

// ServeHTTP implements http.Handler.
func (s *store) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	switch mode := s.now(); mode {
	case "s3 503":
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
	case "s3 hangs":
		s.hang(mode)
	case "s3 breaks off":
		s.proxy.ServeHTTP(httptest.NewRecorder(), q)
		panic(http.ErrAbortHandler)
	default:
		s.proxy.ServeHTTP(w, q)
	}
}

// kept returns the sums of the objects that lie under the name of an instance, by its SOP Instance UID, of the studies' images or of our documents.
func (s *store) kept(tree, study string) (map[string][][32]byte, error) {
	out := map[string][][32]byte{}
	err := filepath.WalkDir(filepath.Join(s.dir, tree, study), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sop, _, _ := strings.Cut(d.Name(), "~")
		out[sop] = append(out[sop], sha256.Sum256(b))
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return out, err
}

// forget takes from the web what it has in its cache: what it shows comes from S3 then.
func (r *run) forget() {
	if r.store == nil {
		return
	}
	r.web.end(syscall.SIGTERM, 8*time.Second)
	eventually(r.t, time.Minute, "the web to end", func() error {
		if r.web.signal(0) {
			return errAgain
		}
		return nil
	})
	if err := os.RemoveAll(filepath.Join(r.folder(r.web.name), "cache")); err != nil {
		r.t.Error(err)
	}
	eventually(r.t, time.Minute, "the web to start without its cache", func() error { return call(impatient, "GET", r.service+"/readyz", nil, nil) })
}

// compareBucket looks for images and documents in the folder of the S3 server.
func (r *run) compareBucket(st *study, documents map[string][]byte, v *verdict, fail func(*int, string, ...any)) {
	if r.store == nil {
		return
	}
	images, err := r.store.kept("instances", st.uid)
	ours, err2 := r.store.kept("documents", st.uid)
	if err := errors.Join(err, err2); err != nil {
		fail(&v.lost, "%v", err)
	}
	for _, in := range st.images {
		if in.taken.Load() && !slices.Contains(images[in.sop], in.digest) {
			fail(&v.lost, "image %s was answered 200, and is not as it was sent among the %d objects of its name", in.sop, len(images[in.sop]))
		}
	}
	for sop, b := range documents {
		if !slices.Contains(ours[sop], sha256.Sum256(b)) {
			fail(&v.lost, "document %s is not as it is shown among the %d objects of its name", sop, len(ours[sop]))
		}
	}
}
