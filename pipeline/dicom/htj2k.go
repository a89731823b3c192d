package dicom

// The High-Throughput JPEG 2000 transfer syntaxes (PS3.5 annex A.4.11), decoded by OpenJPH.
const (
	HTJ2KLossless     = "1.2.840.10008.1.2.4.201"
	HTJ2KLosslessRPCL = "1.2.840.10008.1.2.4.202"
	HTJ2K             = "1.2.840.10008.1.2.4.203"
)

func init() {
	openJPH := codecDecode("DecodeHtJpeg2000", jpeg2000Stream)
	register(syntax{
		Syntax: Syntax{UID: HTJ2KLossless, Name: "High-Throughput JPEG 2000 Image Compression (Lossless Only)", NeedsCodecs: true},
		decode: openJPH, encode: colour8(codecEncode("EncodeHtJpeg2000", nil)),
	})
	register(syntax{
		Syntax: Syntax{UID: HTJ2KLosslessRPCL, Name: "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)", NeedsCodecs: true},
		decode: openJPH, encode: colour8(codecEncode("EncodeHtJpeg2000", map[string]uint64{"ProgressionOrder": 2})),
	})
	register(syntax{
		Syntax: Syntax{UID: HTJ2K, Name: "High-Throughput JPEG 2000 Image Compression", NeedsCodecs: true},
		decode: openJPH,
	})
}
