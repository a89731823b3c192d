package archive

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Store is a versitygw of a test: an S3 server whose objects are files of a folder.
type Store struct {
	Dir  string // of the bucket's objects
	Way  *Way   // before it
	S3   S3
	Name string // s3://...
}

// StartStore starts an S3 server with a bucket; it ends with the test.
func StartStore(t testing.TB) *Store {
	t.Helper()
	bin, err := exec.LookPath("versitygw")
	if err != nil {
		cache, _ := os.UserCacheDir()
		found, _ := filepath.Glob(filepath.Join(cache, "chatxray", "tools", "versitygw-*", "versitygw"))
		if len(found) == 0 {
			t.Skip("versitygw is not installed (bash scripts/tool.sh versitygw)")
		}
		bin = found[len(found)-1]
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	cmd := exec.Command(bin, "--access", "tester", "--secret", "of-the-tests", "--port", at, "posix", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.New(at, &minio.Options{Creds: credentials.NewStaticV4("tester", "of-the-tests", ""), Region: "us-east-1", Transport: transport, MaxRetries: 1})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := client.MakeBucket(context.Background(), "kept", minio.MakeBucketOptions{})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("versitygw does not start: ", err)
		}
	}
	way := startWay(t, "http://"+at)
	return &Store{Dir: filepath.Join(dir, "kept", "of", "tests"), Way: way, Name: "s3://kept/of/tests",
		S3: S3{Endpoint: way.URL, Region: "us-east-1", AccessKey: "tester", SecretKey: "of-the-tests", PathStyle: true, TimeoutSeconds: 2}}
}

// Way is a proxy before the server that can be told to do harm.
type Way struct {
	URL  string
	Harm atomic.Pointer[func(http.ResponseWriter, *http.Request) (done bool)]
	lost atomic.Pointer[func(*http.Request) bool]
	// Asked counts the requests by their method.
	Asked [2]atomic.Int64 // GET and HEAD, PUT
}

func startWay(t testing.TB, to string) *Way {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	proxy := &httputil.ReverseProxy{Transport: transport, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		}}
	w := &Way{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.URL = "http://" + l.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Asked[1].Add(1)
		} else {
			w.Asked[0].Add(1)
		}
		if harm := w.Harm.Load(); harm != nil && (*harm)(rw, r) {
			return
		}
		if lost := w.lost.Load(); lost != nil && (*lost)(r) {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(rw, r)
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
		transport.CloseIdleConnections()
	})
	return w
}

// After has the answers of requests lost that f chooses; nil ends that.
func (w *Way) After(f func(*http.Request) bool) {
	if f == nil {
		w.lost.Store(nil)
		return
	}
	w.lost.Store(&f)
}

// Do has f see each request first; nil ends that.
func (w *Way) Do(f func(http.ResponseWriter, *http.Request) bool) {
	if f == nil {
		w.Harm.Store(nil)
		return
	}
	w.Harm.Store(&f)
}
