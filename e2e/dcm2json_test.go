package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"testing"
)

// element is an attribute in the DICOM JSON model.
type jsonElement struct {
	VR           string `json:"vr"`
	Value        []json.RawMessage
	InlineBinary *string
	BulkDataURI  *string
}

type jsonDataset map[string]jsonElement

// pack lists the files of a folder of the data pack, which lies beside the repository.
func pack(t *testing.T, folders ...string) (files []string) {
	t.Helper()
	for _, f := range folders {
		found, _ := filepath.Glob(filepath.Join(root, "..", "shared", "data", "dicom", f, "*"))
		files = append(files, found...)
	}
	if len(files) == 0 {
		t.Skip("../shared absent: no file in ../shared/data/dicom")
	}
	return slices.DeleteFunc(files, func(f string) bool { info, err := os.Stat(f); return err != nil || info.IsDir() })
}

// explained is where our JSON and DCMTK's differ, and why. A row that explains nothing fails the test.
var explained = []struct {
	file string // pattern of the name
	path string // pattern of the attribute: tags of sequences and items before it
	why  string
}{
	{`syntaxes/cs_CTImage(_LittleEndianImplicit.*)?\.dcm`, `00[0-9A-F]{2}1... VR UN ..`,
		"implicit VR: DCMTK has a dictionary of this maker's private attributes, we say UN and keep the bytes"},
	{`.*`, `(.*\.)?FFFCFFFC missing`, "Data Set Trailing Padding has no meaning (PS3.10 section 7.2); we leave it out"},
	{`.*`, `00080090 value|00100010 value`, "a name of nothing but separators: DCMTK takes it for empty, we keep the separators"},
	{`syntaxes/pydicom_rtdose_rle.*`, `[0-9A-F.]+ VR .. UN`,
		"a standard attribute that the file has as UN: we give it the VR of the dictionary (PS3.5 section 6.2.2), DCMTK 3.6.7 does not"},
	{`edge/fodicom_CR-ModalitySequenceLUT\.dcm`, `CB0D.... added`, "DCMTK gives up at compressed pixel data, and these come after it"},
	{`edge/fodicom_D_CLUNIE_CT1_RLE_FRAGS\.dcm`, `002(80030|8105[23]) value`, "numbers padded with NUL: we take the padding off, DCMTK makes a string of both"},
}

// The JSON of /metadata is that of DCMTK's dcm2json for each file of the data pack that the service takes.
func TestDcm2JSON(t *testing.T) {
	files := pack(t, "wg04", "syntaxes", "edge", "edge/charset", "chest", "sr")
	dcm2json, err := exec.LookPath("dcm2json")
	if err != nil {
		t.Skip("dcm2json is not installed (Debian package dcmtk)")
	}
	s := serve(t, t.TempDir(), "--config", configured(t, "dicomweb:\n  delete: true\nline:\n  quiet: 10m\n"))
	compared, refused, unread := 0, 0, 0
	used := map[int]int{}
	for _, file := range files {
		name, err := filepath.Rel(filepath.Join(root, "..", "shared", "data", "dicom"), file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		url := keep(t, s, b)
		if url == "" {
			refused++
			continue
		}
		theirs, err := dcmtkJSON(dcm2json, file)
		if err != nil {
			unread++
			t.Logf("%s: the service takes it, dcm2json does not: %v", name, err)
		} else {
			var ours []jsonDataset
			getJSON(t, url+"/metadata", &ours)
			compared++
			for _, path := range unequal(t, ours[0], theirs, "") {
				at := slices.IndexFunc(explained, func(e struct{ file, path, why string }) bool {
					return matches(e.file, name) && matches(e.path, path)
				})
				if at < 0 {
					t.Errorf("%s: %s differs", name, path)
				} else {
					used[at]++
				}
			}
		}
		request, err := http.NewRequest(http.MethodDelete, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(request); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%s: %v %v", name, resp, err)
		}
	}
	for i, e := range explained {
		if used[i] == 0 {
			t.Errorf("nothing differs in %s at %s any more: %s", e.file, e.path, e.why)
		}
		t.Logf("%d attributes: %s", used[i], e.why)
	}
	if compared < 180 {
		t.Errorf("only %d files were compared", compared)
	}
	t.Logf("%d files compared, %d refused by the service, %d not read by dcm2json", compared, refused, unread)
}

func matches(pattern, s string) bool {
	return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(s)
}

// keep stores a file and returns its RetrieveURL; "" when it is refused.
func keep(t *testing.T, s *service, b []byte) string {
	t.Helper()
	resp, err := http.Post(s.dicomweb()+"/studies", "application/dicom", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	var told map[string]struct {
		Value []map[string]struct{ Value []string }
	}
	_ = json.Unmarshal(answer, &told) // the answer's own RetrieveURL is of another type
	items := told["00081199"].Value
	if len(items) != 1 || len(items[0]["00081190"].Value) != 1 {
		t.Fatalf("%s", answer)
	}
	return items[0]["00081190"].Value[0]
}

// dcmtkJSON is what dcm2json prints. Release 3.6.7 gives up encapsulated pixel data, with exit code 81 and a comma too many, after all else.
func dcmtkJSON(program, file string) (d jsonDataset, err error) {
	var errs bytes.Buffer
	cmd := exec.Command(program, "-fc", "-ee", file)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil && !bytes.Contains(errs.Bytes(), []byte("not supported for compressed pixel data")) {
		return nil, fmt.Errorf("%w: %s", err, errs.Bytes())
	}
	out = bytes.ReplaceAll(out, []byte(",}"), []byte("}"))
	return d, json.Unmarshal(out, &d)
}

// unequal lists the paths of what differs. Pixel data and waveforms are not compared: metadata do not hold them.
func unequal(t *testing.T, a, b jsonDataset, at string) (paths []string) {
	t.Helper()
	tags := slices.Sorted(maps.Keys(a))
	for tag := range b {
		if _, ok := a[tag]; !ok {
			tags = append(tags, tag)
		}
	}
	for _, tag := range tags {
		path := at + tag
		x, inA := a[tag]
		y, inB := b[tag]
		switch {
		case slices.Contains([]string{"7FE00008", "7FE00009", "7FE00010", "54001010"}, tag):
		case !inA:
			paths = append(paths, path+" missing")
		case !inB:
			paths = append(paths, path+" added")
		case x.VR != y.VR:
			paths = append(paths, path+" VR "+x.VR+" "+y.VR)
		case x.VR == "SQ":
			if len(x.Value) != len(y.Value) {
				paths = append(paths, path+" items")
				continue
			}
			for i := range x.Value {
				var p, q jsonDataset
				if json.Unmarshal(x.Value[i], &p) != nil || json.Unmarshal(y.Value[i], &q) != nil {
					paths = append(paths, path+" item")
					continue
				}
				paths = append(paths, unequal(t, p, q, path+".")...)
			}
		case !bytes.Equal(bytesOf(t, x), bytesOf(t, y)):
			paths = append(paths, path+" bytes")
		case !sameValues(x.VR, x.Value, y.Value):
			paths = append(paths, path+" value")
		}
	}
	return paths
}

// bytesOf is a value in line, or what its BulkDataURI leads to.
func bytesOf(t *testing.T, e jsonElement) []byte {
	t.Helper()
	switch {
	case e.BulkDataURI != nil && *e.BulkDataURI != "":
		b, err := get(*e.BulkDataURI)
		if err != nil {
			t.Error(err)
		}
		return b
	case e.InlineBinary != nil:
		b, err := base64.StdEncoding.DecodeString(*e.InlineBinary)
		if err != nil {
			t.Error(err)
		}
		return b
	}
	return nil
}

// sameValues compares values as JSON. Floats may differ by what DCMTK's own number formatting loses: less than what FL holds, the last bit of FD.
func sameValues(vr string, a, b []json.RawMessage) bool {
	return slices.EqualFunc(a, b, func(a, b json.RawMessage) bool {
		var x, y any
		if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
			return false
		}
		p, inA := x.(float64)
		q, inB := y.(float64)
		switch {
		case inA && inB && vr == "FL":
			return float32(p) == float32(q)
		case inA && inB && vr == "FD":
			return p == q || math.Nextafter(p, q) == q
		}
		return reflect.DeepEqual(x, y)
	})
}
