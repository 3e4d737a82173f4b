import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;

/**
 * A direct mTLS client: Java's HttpClient calls a gateway with an SVID of its own.
 *
 * <pre>java Client URL CHAIN KEY ROOT BODY</pre>
 *
 * Posts the file BODY, and prints who answered and what came back.
 */
public final class Client {
    public static void main(String[] arguments) throws Exception {
        var context = Identity.context(arguments[1], arguments[2], arguments[3]);
        // Offers h2 too. A gateway chooses no protocol, so HTTP/1.1 is spoken.
        var client = HttpClient.newBuilder().sslContext(context).build();
        var body = HttpRequest.BodyPublishers.ofFile(Path.of(arguments[4]));
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).POST(body).build();
        var response = client.send(request, BodyHandlers.ofByteArray());
        if (response.statusCode() != 200) {
            throw new IllegalStateException("status " + response.statusCode());
        }
        var digest = MessageDigest.getInstance("SHA-256").digest(response.body());
        System.out.println("peer " + Identity.peer(response.sslSession().orElseThrow().getPeerCertificates()));
        System.out.println("body " + HexFormat.of().formatHex(digest));
        System.out.println("runtime Java " + System.getProperty("java.version"));
    }
}
