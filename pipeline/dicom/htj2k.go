package dicom

// The High-Throughput JPEG 2000 transfer syntaxes (PS3.5 annex A.4.11), decoded by OpenJPH.
const (
	HTJ2KLossless     = "1.2.840.10008.1.2.4.201"
	HTJ2KLosslessRPCL = "1.2.840.10008.1.2.4.202"
	HTJ2K             = "1.2.840.10008.1.2.4.203"
)

func init() {
	for _, s := range []struct{ uid, name string }{
		{HTJ2KLossless, "High-Throughput JPEG 2000 Image Compression (Lossless Only)"},
		{HTJ2KLosslessRPCL, "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)"},
		{HTJ2K, "High-Throughput JPEG 2000 Image Compression"},
	} {
		register(syntax{Syntax: Syntax{UID: s.uid, Name: s.name, NeedsCodecs: true}, decode: codecDecode("DecodeHtJpeg2000", jpeg2000Stream)})
	}
}
