package dicom_test

import (
	"os"
	"testing"

	"chatxray/pipeline/dicom"
)

// codecsThere tells whether the codec module was found.
var codecsThere bool

func TestMain(m *testing.M) {
	if path := os.Getenv("CHATXRAY_CODECS"); path != "" {
		_, err := os.Stat(path)
		codecsThere = err == nil
		dicom.SetCodecModule(path)
	}
	os.Exit(m.Run())
}

const noCodecs = "no codec module: CHATXRAY_CODECS does not name dcmjs-native-codecs.wasm (npm dcmjs-codecs 0.0.8)"
