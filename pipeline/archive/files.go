package archive

import (
	"context"
	"io"
	"path"
	"strings"
	"time"

	"chatxray/pipeline"
)

// files is where an archive's files are kept. A kind is one file of this package: folder.go, s3.go; one suite runs over both. Names are
// relative to the archive, with slashes. Errors wrap fs.ErrNotExist, pipeline.ErrFull, or pipeline.ErrUnavailable where what keeps them does not
// answer.
type files interface {
	// write keeps a file under a name, whole and durably; what was there before is gone then.
	write(ctx context.Context, name string, b []byte) error
	// copy keeps a file of what the index has, too: like write, but the power may take what the last seconds have brought.
	copy(ctx context.Context, name string, b []byte) error
	// read opens a file.
	read(ctx context.Context, name string) (io.ReadCloser, error)
	// list tells the files below a folder, which need not be there; f's error ends it.
	list(ctx context.Context, folder string, f func(keptFile) error) error
	// remove removes files durably. One that is not there is no error.
	remove(ctx context.Context, names ...string) error
	// secure makes the bytes of a local file durable before the index knows of them. Kinds whose files are elsewhere keep them under the name.
	secure(ctx context.Context, local, name string, sum pipeline.Digest) error
	// path is where the file of that name is read; fetch brings it there where it is not. It stays there for a while, and for who has it open.
	path(name string) string
	fetch(ctx context.Context, name string, sum pipeline.Digest) error
}

// keptFile is one file of a list.
type keptFile struct {
	name    string
	size    int64
	changed time.Time
}

// readAll reads a small file.
func readAll(ctx context.Context, f files, name string) ([]byte, error) {
	r, err := f.read(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// namesBelow lists the names of files in a folder, without the folder's.
func namesBelow(ctx context.Context, f files, folder string) (out []string, err error) {
	err = f.list(ctx, folder, func(l keptFile) error {
		out = append(out, strings.TrimPrefix(l.name, folder+"/"))
		return nil
	})
	return out, err
}

// recordFile is the name of a file that goes with a study's records.
func recordFile(study string, elem ...string) string {
	return path.Join(append([]string{recordsDir, study}, elem...)...)
}
