package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

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
	return dicomweb.Secure{Listener: l, Config: d.tls}, "https"
}

// bare tells whether credentials would cross the network unencrypted.
func (d door) bare(cfg config.Config) bool {
	return d.tls == nil && cfg.DICOMweb.Auth.Any() && dicomweb.Config{}.CheckListen(cfg.Listen) != nil
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
		said += ", TLS until " + d.tls.Certificates[0].Leaf.NotAfter.UTC().Format(time.DateOnly)
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
	line   *pipeline.Line
	arch   *archive.Archive
	shared bool // other processes work for the same archive
}

// Delete implements dicomweb.Deleter. A reading or a delivery of the study under way is stopped first; what is left of the study is
// looked at again, and a reading about an image that is gone is withdrawn.
func (d deleter) Delete(ctx context.Context, study, series, sop string) (int, error) {
	if _, err := d.arch.Entries(ctx, study, series, sop); err != nil {
		return 0, err
	}
	release := d.line.Hold(study)
	defer release()
	if d.shared {
		d.interrupt(ctx, study)
	}
	n, left, err := d.arch.Delete(ctx, study, series, sop)
	if left || err != nil {
		err = errors.Join(err, d.withdraw(ctx, study), d.line.Shrunk(context.WithoutCancel(ctx), study))
	}
	return n, err
}

// interrupt tells workers elsewhere; what they write of the study all the same is refused once it is gone.
func (d deleter) interrupt(ctx context.Context, study string) {
	if err := d.line.Interrupt(ctx, study); err != nil {
		d.line.Log.Warn().Str("study", study).Err(err).Msg("workers could not be told of a deletion")
	}
}

// withdraw takes back the readings about images that are gone.
func (d deleter) withdraw(ctx context.Context, study string) error {
	left, err := d.arch.Entries(ctx, study, "", "")
	if err != nil && !errors.Is(err, pipeline.ErrNotFound) {
		return err
	}
	return d.line.Withdraw(ctx, study, func(sop string) bool {
		return slices.ContainsFunc(left, func(in *pipeline.Instance) bool { return in.SOPInstanceUID == sop })
	})
}
