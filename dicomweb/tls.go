package dicomweb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/rs/zerolog"

	"chatxray/pipeline"
)

// TLS is the section "dicomweb.tls" of the configuration file: files in PEM, which are read again when they change.
type TLS struct {
	Certificate string `yaml:"certificate"` // with its chain; empty: no TLS
	Key         string `yaml:"key"`
	ClientCA    string `yaml:"client_ca"` // whose client certificates dicomweb.auth.certificates may name
}

func (t TLS) check(certificates bool) error {
	var errs []error
	if (t.Certificate == "") != (t.Key == "") {
		errs = append(errs, errors.New("dicomweb.tls: certificate and key belong together"))
	}
	if t.ClientCA != "" && t.Certificate == "" {
		errs = append(errs, errors.New("dicomweb.tls.client_ca: client certificates need certificate and key"))
	}
	if certificates != (t.ClientCA != "") {
		errs = append(errs, errors.New("dicomweb.tls.client_ca and dicomweb.auth.certificates belong together"))
	}
	return errors.Join(errs...)
}

// On tells whether the service speaks TLS.
func (t TLS) On() bool { return t.Certificate != "" }

// Open reads the files and returns the configuration of a listener: TLS 1.2 or newer, HTTP/2 and HTTP/1.1. A client may come without a
// certificate, because health checks do; what it may then do is the guard's.
func (t TLS) Open(log zerolog.Logger) (*tls.Config, error) {
	files := []string{t.Certificate, t.Key}
	if t.ClientCA != "" {
		files = append(files, t.ClientCA)
	}
	w, err := watch(files, t.load, log)
	if err != nil {
		return nil, fmt.Errorf("%w: dicomweb.tls: %w", pipeline.ErrInvalid, err)
	}
	c := w.value().Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.value(), nil }
	return c, nil
}

func (t TLS) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		if !errors.As(err, new(*os.PathError)) {
			err = fmt.Errorf("%s with %s: %w", t.Certificate, t.Key, err)
		}
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if t.ClientCA != "" {
		b, err := os.ReadFile(t.ClientCA)
		if err != nil {
			return nil, err
		}
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !c.ClientCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", t.ClientCA)
		}
	}
	return c, nil
}

// Secure is a listener whose connections speak TLS. Serve puts TLS around the connections as it has prepared them, because net/http speaks
// HTTP/2 only where a connection is TLS on its outside.
type Secure struct {
	net.Listener
	Config *tls.Config
}

// prepared has the connections of a listener prepared below TLS, where there is TLS.
func prepared(l net.Listener, prepare func(net.Listener) net.Listener) net.Listener {
	if s, ok := l.(Secure); ok {
		return tls.NewListener(prepare(s.Listener), s.Config)
	}
	return prepare(l)
}

// streams moves the deadline of an answer over HTTP/2 on before each piece. There a client that takes nothing does not stop the connection
// but its stream alone, so that no deadline of the connection ends the wait.
func (s *server) streams(c *gin.Context) {
	if c.Request.ProtoMajor == 2 {
		c.Writer = streamWriter{c.Writer, http.NewResponseController(c.Writer), s.Idle}
	}
}

type streamWriter struct {
	gin.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
}

func (w streamWriter) Write(b []byte) (n int, err error) {
	const piece = 64 << 10
	for {
		_ = w.control.SetWriteDeadline(time.Now().Add(w.idle))
		m, err := w.ResponseWriter.Write(b[:min(len(b), piece)])
		n, b = n+m, b[m:]
		if err != nil || len(b) == 0 {
			return n, err
		}
	}
}

func (w streamWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// Unwrap lets http.ResponseController find what is below.
func (w streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
