package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/rs/zerolog"

	"chatxray/config"
	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// door is what stands between the network and the service: who may come in, TLS, and the viewer's files.
type door struct {
	guard  *dicomweb.Guard
	tls    *tls.Config // nil where the service speaks plain HTTP
	viewer *os.Root    // nil without a viewer
}

// openDoor opens the files that the configuration names. The error wraps errConfig.
func openDoor(cfg dicomweb.Config, log zerolog.Logger) (d door, err error) {
	if d.guard, err = dicomweb.NewGuard(cfg, log); err == nil && cfg.TLS.On() {
		d.tls, err = cfg.TLS.Open(log)
	}
	if err == nil && cfg.Viewer != "" {
		if d.viewer, err = os.OpenRoot(cfg.Viewer); err == nil {
			_, err = d.viewer.Stat("index.html")
		}
		if err != nil {
			err = fmt.Errorf("viewer: %w; name the folder that holds index.html, for OHIF the folder dist of its npm package", err)
		}
	}
	if err != nil {
		d.Close()
		return d, fmt.Errorf("%w: %w", errConfig, err)
	}
	return d, nil
}

// Close closes the viewer's folder.
func (d door) Close() {
	if d.viewer != nil {
		d.viewer.Close()
	}
}

// pages are the viewer's files; nil without a viewer.
func (d door) pages() fs.FS {
	if d.viewer == nil {
		return nil
	}
	return d.viewer.FS()
}

// listen puts TLS around a listener where it is configured.
func (d door) listen(l net.Listener) (_ net.Listener, scheme string) {
	if d.tls == nil {
		return l, "http"
	}
	return tls.NewListener(l, d.tls), "https"
}

// describe tells in words who may come in.
func (d door) describe(ctx context.Context, cfg config.Config) string {
	var ways []string
	a := cfg.DICOMweb.Auth
	for _, w := range []struct {
		used bool
		name string
	}{{len(a.Tokens) > 0, "tokens"}, {len(a.Users) > 0 || a.Htpasswd.File != "", "passwords"}, {a.OIDC.Issuer != "", "OIDC"}, {len(a.Certificates) > 0, "client certificates"}} {
		if w.used {
			ways = append(ways, w.name)
		}
	}
	who := "everybody"
	if len(ways) > 0 {
		who = "who shows " + strings.Join(ways, " or ")
	}
	said := cfg.Listen + " for " + who
	if d.tls != nil {
		said += ", TLS"
	}
	if d.guard != nil {
		if err := d.guard.Check(ctx); err != nil {
			said += "; tokens of the issuer will be refused until it answers: " + err.Error()
		}
	}
	return said
}

// deleter deletes for the service.
type deleter struct {
	line *pipeline.Line
	arch *archive.Archive
}

// Delete implements dicomweb.Deleter. A reading or a delivery of the study under way is stopped first; what is left of the study is
// looked at again.
func (d deleter) Delete(ctx context.Context, study, series, sop string) (int, error) {
	if _, err := d.arch.Instances(ctx, study, series, sop); err != nil {
		return 0, err
	}
	release := d.line.Hold(study)
	defer release()
	n, left, err := d.arch.Delete(ctx, study, series, sop)
	if left || err != nil {
		d.line.Stored(study)
	}
	return n, err
}
