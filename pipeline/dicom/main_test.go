package dicom_test

import (
	"os"
	"testing"

	"chatxray/parts"
	"chatxray/pipeline/dicom"
)

// codecsThere tells whether the codec module was found.
var codecsThere bool

const noCodecs = "no codec module: CHATXRAY_CODECS does not name dcmjs-native-codecs.wasm, and the run-time part dcmjs-codecs is not fetched"

func TestMain(m *testing.M) {
	path := os.Getenv("CHATXRAY_CODECS")
	if path == "" {
		path, _ = parts.Path("dcmjs-codecs")
	}
	if _, err := os.Stat(path); err == nil {
		codecsThere = true
		dicom.SetCodecModule(path)
	}
	os.Exit(m.Run())
}
