import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** An SVID out of PEM files, and the roots by which peers are verified, as Java's TLS wants them. */
final class Identity {
    /** SAN of this kind: uniformResourceIdentifier (RFC 5280 section 4.2.1.6). */
    private static final int URI = 6;

    static SSLContext context(String chain, String key, String root) throws Exception {
        Certificate[] own = certificates(chain);
        String pem = Files.readString(Path.of(key)).replaceAll("-----[A-Z ]+-----|\\s", "");
        var spec = new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem));
        // EC or RSA, as the certificate says.
        var secret = KeyFactory.getInstance(own[0].getPublicKey().getAlgorithm()).generatePrivate(spec);
        KeyStore keys = empty();
        keys.setKeyEntry("svid", secret, new char[0], own);
        KeyStore roots = empty();
        int number = 0;
        for (Certificate certificate : certificates(root)) {
            roots.setCertificateEntry("root-" + number++, certificate);
        }
        var ours = KeyManagerFactory.getInstance("PKIX");
        ours.init(keys, new char[0]);
        var theirs = TrustManagerFactory.getInstance("PKIX");
        theirs.init(roots);
        var context = SSLContext.getInstance("TLSv1.3");
        context.init(ours.getKeyManagers(), theirs.getTrustManagers(), null);
        return context;
    }

    /** The one SPIFFE ID that a peer has shown. */
    static String peer(Certificate[] chain) throws Exception {
        for (List<?> name : ((X509Certificate) chain[0]).getSubjectAlternativeNames()) {
            if (name.get(0).equals(URI)) {
                return (String) name.get(1);
            }
        }
        throw new SecurityException("the peer's certificate has no URI SAN");
    }

    private static Certificate[] certificates(String path) throws Exception {
        var bytes = new ByteArrayInputStream(Files.readAllBytes(Path.of(path)));
        return CertificateFactory.getInstance("X.509").generateCertificates(bytes).toArray(new Certificate[0]);
    }

    private static KeyStore empty() throws Exception {
        var store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }
}
